// Codes and scales of coded_matrix.h one value at a time, as every backend computes them: each line is one correctly
// rounded operation or an explicit fused multiply-add. What is not a number becomes the lowest code, and stays visible
// in its scale.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "kernels/core/simd.h"
#include "kernels/quant/number_format.h"

namespace trainyard::kernels::internal {

inline constexpr float kLargestInt4 = 7.0f;

struct Scale {
  float value = 0;    // as stored
  float inverse = 0;  // 0 for 0
};

TY_INLINE float LargestCode(bool is_int4) {
  return is_int4 ? kLargestInt4 : 448.0f;
}

// A scale as it is stored.
TY_INLINE Scale ScaleOf(float value) {
  Scale scale;
  scale.value = value;
  scale.inverse = value == 0 ? 0 : 1 / value;
  return scale;
}

// For a span whose largest magnitude is `amax`: rounded up if it is stored as f16.
TY_INLINE Scale MakeScale(float amax, bool is_int4, bool is_f16) {
  float value = amax / LargestCode(is_int4);
  if (is_f16) {
    Float16 stored = RoundNearest<Float16>(value);
    if (WidenToFloat(stored) < value) ++stored.bits;
    value = WidenToFloat(stored);
  }
  if (value < FLT_MIN) value = 0;  // its inverse would not be finite
  return ScaleOf(value);
}

TY_INLINE float ClampInt4(float code) {
  const float low = code > -kLargestInt4 ? code : -kLargestInt4;
  return low < kLargestInt4 ? low : kLargestInt4;
}

// An INT4 code as an int8_t.
TY_INLINE uint8_t Int4Code(float x, float inverse) {
  return static_cast<uint8_t>(static_cast<int32_t>(ClampInt4(__builtin_rintf(x * inverse))));
}

// Up with the probability of the distance from below; draws are centred in their 2^23 cells, so that they do not bias.
TY_INLINE uint8_t Int4Code(float x, float inverse, uint32_t word) {
  const float below = __builtin_floorf(x * inverse);
  const float distance = __builtin_fmaf(x, inverse, -below);
  const float known = distance > 0.0f ? distance : 0.0f;
  const float draw = (static_cast<float>(static_cast<int32_t>(word >> 9)) + 0.5f) * 0x1p-23f;
  const int32_t up = static_cast<int32_t>(__builtin_bit_cast(uint32_t, draw - known) >> 31);
  const int32_t code = static_cast<int32_t>(ClampInt4(below)) + up;
  return static_cast<uint8_t>(code < 7 ? code : 7);
}

TY_INLINE uint8_t E4M3Code(float x, float inverse) {
  return RoundNearest<Float8E4M3>(x * inverse, Overflow::kSaturate).bits;
}

// `overflow` comes as an argument: of a constant GCC makes a branch, and the loop does not vectorise.
TY_INLINE uint8_t E4M3Code(float x, float inverse, uint32_t word, Overflow overflow) {
  return RoundStochastic<Float8E4M3>(x * inverse, word, overflow).bits;
}

TY_INLINE float Int4Value(uint8_t byte, float scale) {
  return static_cast<float>(static_cast<int8_t>(byte)) * scale;
}
TY_INLINE float E4M3Value(uint8_t byte, float scale) {
  return WidenToFloat(Float8E4M3{byte}) * scale;
}

// Two INT4 codes a byte. Reading carries the sign of four bits into eight.
TY_INLINE uint8_t PackInt4Pair(uint8_t even, uint8_t odd) {
  return static_cast<uint8_t>((even & 15) | (odd << 4));
}
TY_INLINE uint8_t EvenInt4(uint8_t packed) {
  return static_cast<uint8_t>(((packed & 15) ^ 8) - 8);
}
TY_INLINE uint8_t OddInt4(uint8_t packed) {
  return static_cast<uint8_t>(((packed >> 4) ^ 8) - 8);
}

}  // namespace trainyard::kernels::internal
