// Which elements of a tensor are kept, as bits: element i in bit i % 8 of byte i / 8, set where kept; the bits past the
// last element are 0.
//
//   MaskApply    x = x where kept, 0 elsewhere
//   MaskCompare  how many bits differ (the mask's flips), are set in both, and in either (both / either is the IoU)
//   MaskReplace  the same, and then mask = next
//
// The same bits for any number of threads.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

inline constexpr int64_t MaskBytes(int64_t elements) {
  return (elements + 7) / 8;
}

struct MaskApplyArgs {
  TensorView x;     // f32 or bf16 (n), updated
  TensorView mask;  // u8
};
void MaskApply(const MaskApplyArgs& args, Stream& stream);

struct MaskCompareArgs {
  TensorView a, b;    // u8, equal size
  TensorView counts;  // u32 (3), overwritten: differing, both, either
};
void MaskCompare(const MaskCompareArgs& args, Stream& stream);

struct MaskReplaceArgs {
  TensorView mask;    // u8, overwritten
  TensorView next;    // u8, equal size
  TensorView counts;  // u32 (3), overwritten
};
void MaskReplace(const MaskReplaceArgs& args, Stream& stream);

}  // namespace trainyard::kernels
