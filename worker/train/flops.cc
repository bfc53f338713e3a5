#include "worker/train/flops.h"

#include <algorithm>

#include "base/clock.h"
#include "kernels/core/arena.h"
#include "kernels/core/dispatch.h"
#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/elementwise.h"

namespace trainyard::train {

using kernels::TensorView;

double FlopsPerToken(const model::ModelConfig& config, int64_t sequence_length) {
  int64_t matrices = config.vocab_size * config.hidden_size, attention = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const model::BlockShape block = config.block_shape(layer);
    matrices += config.hidden_size * (config.qkv_width(block) + config.attention_width(block));
    matrices += 3 * config.hidden_size * block.intermediate;
    attention += config.attention_width(block) * sequence_length;
  }
  return 6.0 * static_cast<double>(matrices) + 6.0 * static_cast<double>(attention);
}

double MeasureGemmRate(kernels::Stream& stream) {
  constexpr int64_t kExtent = 1024;
  const auto allocate = [](kernels::Arena& arena) {
    return arena.Allocate("matrices", kernels::DType::kF32, {3, kExtent, kExtent});
  };
  kernels::Arena counting = kernels::Arena::CountOnly(stream.device());
  allocate(counting);
  absl::StatusOr<kernels::Arena> arena = kernels::Arena::Reserve(counting);
  TY_CHECK_OK(arena);  // 12 MiB
  const TensorView all = allocate(*arena);
  kernels::Fill({.y = all, .value = 0.5f}, stream);
  const auto matrix = [&](int64_t i) { return all.Slice(i, 1).Reshape({kExtent, kExtent}); };
  const auto once = [&] {
    Gemm({.a = matrix(0), .b = matrix(1), .c = matrix(2), .transpose_b = true}, stream);
    kernels::WaitForDevice(stream);
  };
  once();
  // The best of several: what disturbs only slows down.
  double best = 1e9;
  for (int i = 0; i < 4; ++i) {
    const absl::Duration begin = RealClock()->Monotonic();
    once();
    best = std::min(best, absl::ToDoubleSeconds(RealClock()->Monotonic() - begin));
  }
  return 2.0 * kExtent * kExtent * kExtent / best;
}

}  // namespace trainyard::train
