// Steps and scales of MS-EDEN with post hoc range alignment (nvfp4_post_hoc.h), as every backend computes them: each
// line is one correctly rounded operation.
#pragma once

#include "kernels/quant/nvfp4_formula.h"

namespace trainyard::kernels {

inline constexpr float kNvSmallestStep = 0x1p-117f;

// p = E8M3(largest / clip) of a group; NaN for NaN and infinity, 1 for what is too small to divide by.
TY_INLINE float NvPostHocStep(float largest, float clip) {
  const float magnitude = largest / clip;
  constexpr uint32_t kHalf = 0x7FFFF;  // less one: ties go to even
  const uint32_t bits = __builtin_bit_cast(uint32_t, magnitude);
  const uint32_t rounded = (bits + kHalf + ((bits >> 20) & 1)) & 0xFFF00000u;
  const float step = __builtin_bit_cast(float, bits >= 0x7F780000u ? 0x7FC00000u : rounded);
  return magnitude < kNvSmallestStep ? 1.0f : step;
}

// bf16(p S); 0 for a group of zeros.
TY_INLINE BFloat16 NvPseudoScale(float step, float squares, float products) {
  return FromFloat<BFloat16>(products == 0.0f ? 0.0f : step * EdenFactor(squares, products));
}

// s32 from the bits of the largest pseudo scale.
TY_INLINE float NvPostHocTensorScale(uint32_t largest_pseudo) {
  const float scale = ToFloat(BFloat16{static_cast<uint16_t>(largest_pseudo)}) / 256.0f;
  return scale < kNvSmallestStep ? 1.0f : scale;
}

// s8.
TY_INLINE Float8E4M3 NvAlignedScale(BFloat16 pseudo, float tensor_scale, uint32_t word) {
  const float aligned = pseudo.bits == 0 ? 1.0f : ToFloat(pseudo) / tensor_scale;
  return RoundStochastic<Float8E4M3>(aligned, word, Overflow::kSaturate);
}

}  // namespace trainyard::kernels
