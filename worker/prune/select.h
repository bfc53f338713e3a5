// The lowest scores as flags, by the same kernels as the optimizer's.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/codec/bit_packing.h"
#include "kernels/prune/prune_select.h"

namespace trainyard::prune {

class Selector {
 public:
  explicit Selector(int64_t most_elements)
      : mask_(static_cast<size_t>(kernels::MaskBytes(most_elements))), counts_(256) {}

  // kept[i] = 0 for the `count` lowest scores, or for half of every `group` neighbours if that is above 0; else 1.
  void Select(const kernels::PruneScore& score, int group, int64_t count, uint8_t* kept, kernels::Stream& stream) {
    const int64_t size = score.w.size();
    const kernels::TensorView mask(mask_.data(), kernels::DType::kU8, {kernels::MaskBytes(size)});
    if (group > 0) {
      PruneGroups({.score = score, .keep = group / 2, .group = group, .mask = mask}, stream);
    } else {
      PruneLowest({&score, 1}, count, {&mask, 1}, {counts_.data(), kernels::DType::kU32, {256}}, stream);
    }
    kernels::UnpackCodes(mask_.data(), size, 1, kept);
  }

 private:
  std::vector<uint8_t> mask_;
  std::vector<uint32_t> counts_;
};

}  // namespace trainyard::prune
