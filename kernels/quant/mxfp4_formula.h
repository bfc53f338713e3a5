// The scale of one group of MXFP4, as every backend computes it: each line is one correctly rounded operation or an
// explicit fused multiply-add.
#pragma once

#include <cmath>

#include "kernels/core/unroll.h"
#include "kernels/quant/mxfp4.h"
#include "kernels/quant/quest_formula.h"

namespace trainyard::kernels {

// half[0] + ... + half[15], by halves.
TY_INLINE float MxHalfSum(float* half) {
#if defined(__CUDACC__)  // constant bounds, so that `half` stays in registers
  TY_UNROLL
  for (int i = 0; i < 8; ++i) half[i] += half[i + 8];
  TY_UNROLL
  for (int i = 0; i < 4; ++i) half[i] += half[i + 4];
  TY_UNROLL
  for (int i = 0; i < 2; ++i) half[i] += half[i + 2];
  return half[0] + half[1];
#else
  for (int width = kMxGroup / 4; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) half[i] += half[i + width];
  }
  return half[0];
#endif
}

// Standard deviation, or root mean square, of 32 values. Sums begin with value i and value i + 16.
TY_INLINE float MxGroupSpread(const float* v, MxSpread spread) {
  constexpr int kHalf = kMxGroup / 2;
  float half[kHalf];
  TY_UNROLL
  for (int i = 0; i < kHalf; ++i) half[i] = v[i] + v[i + kHalf];
  const float mean = spread == MxSpread::kStandardDeviation ? MxHalfSum(half) * (1.0f / kMxGroup) : 0.0f;
  TY_UNROLL
  for (int i = 0; i < kHalf; ++i) {
    const float a = v[i] - mean;
    const float b = v[i + kHalf] - mean;
    half[i] = __builtin_fmaf(a, a, b * b);
  }
  return std::sqrt(MxHalfSum(half) * (1.0f / kMxGroup));
}

// Bits of the largest magnitude; above those of infinity if there is a NaN.
TY_INLINE uint32_t MxGroupLargest(const float* v) {
  uint32_t largest = 0;
  TY_UNROLL
  for (int i = 0; i < kMxGroup; ++i) {
    const uint32_t magnitude = __builtin_bit_cast(uint32_t, v[i]) & 0x7FFFFFFF;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// The code of the scale. A spread or magnitude that is not finite gives kE8M0Nan.
TY_INLINE uint32_t MxScaleCode(const float* v, const MxFormat& format) {
  if (format.scale == MxScale::kAbsMax) {
    const uint32_t exponent = MxGroupLargest(v) >> 23;
    const uint32_t lowered = exponent > 2 ? exponent - 2 : 0;
    return exponent == 255 ? kE8M0Nan : lowered;
  }
  const uint32_t largest = MxGroupLargest(v);
  const float spread = MxGroupSpread(v, format.spread);
  constexpr float kUnit = static_cast<float>(kQuestClipFp4 / 6);
  const uint32_t code = E8M0Code(__builtin_fmaf(kUnit, spread, kQuestEpsilon), format.exponent);
  const uint32_t of_zeros = largest == 0 ? 0 : code;
  return largest >= 0x7F800000 ? kE8M0Nan : of_zeros;
}

}  // namespace trainyard::kernels
