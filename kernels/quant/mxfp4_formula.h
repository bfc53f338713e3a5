// The scale of one group of MXFP4, as every backend computes it: each line is one correctly rounded operation or an
// explicit fused multiply-add.
#pragma once

#include <cmath>

#include "kernels/quant/mxfp4.h"
#include "kernels/quant/quest_formula.h"

namespace trainyard::kernels {

// The sum of 32 values: column i plus column i + 16, and so on by halves.
TY_INLINE float MxGroupSum(const float* values) {
  float half[kMxGroup / 2];
  for (int i = 0; i < 16; ++i) half[i] = values[i] + values[i + 16];
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) half[i] += half[i + width];
  }
  return half[0];
}

// Standard deviation, or root mean square, of 32 values.
TY_INLINE float MxGroupSpread(const float* v, MxSpread spread) {
  const float mean = spread == MxSpread::kStandardDeviation ? MxGroupSum(v) * (1.0f / kMxGroup) : 0.0f;
  float squares[kMxGroup];
  for (int i = 0; i < kMxGroup; ++i) {
    const float deviation = v[i] - mean;
    squares[i] = deviation * deviation;
  }
  return std::sqrt(MxGroupSum(squares) * (1.0f / kMxGroup));
}

// Bits of the largest magnitude; above those of infinity if there is a NaN.
TY_INLINE uint32_t MxGroupLargest(const float* v) {
  uint32_t largest = 0;
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
