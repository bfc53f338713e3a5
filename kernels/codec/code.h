// The formulas of the codes that gradients travel in, one value at a time. Every backend calls these, so that codes and
// decoded values are equal bit for bit wherever they are computed: each line is one correctly rounded operation (or an
// explicit fused multiply-add), and none has the form a * b + c, which a compiler could fuse or not.
//
// `draw` is uniform in [0, 1) with 24 bits: ToUniform(RandomWord(key, element)), element counted within the tensor.
#pragma once

#include <cstdint>

#include "kernels/core/philox.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels {

enum class CodeRounding { kStochastic, kNearest };

// A comparison with this instead of a draw rounds to nearest, halves up: the largest float below 1/2.
inline constexpr float kNearestDraw = 0x1.fffffep-2f;

inline constexpr float kLargestFinite = 0x1.fffffep127f;
inline constexpr float kSmallestFloat = 0x1p-149f;
inline constexpr uint32_t kInfinityBits = 0x7F800000;

// Ordered like magnitudes; NaN lies above infinity, so one integer maximum sees all that is not finite.
TY_INLINE uint32_t FloatMagnitudeBits(float x) {
  return __builtin_bit_cast(uint32_t, x) & 0x7FFFFFFF;
}

// Of infinities, NaN and what is beyond the largest float one NaN: the same bits whatever a sum made of them.
TY_INLINE float FiniteOrNan(double x) {
  return __builtin_fabs(x) <= static_cast<double>(kLargestFinite) ? static_cast<float>(x) : __builtin_nanf("");
}

// ---- maxmin: evenly spaced levels between the least and the largest value of a bucket.

struct MaxminBucket {
  float unit;     // 0: all values are equal; NaN: the bucket holds a value that is not finite
  float minimum;  // -0 counts as +0
};

// steps = 2^bits - 1. A range beyond the largest float counts as not finite.
TY_INLINE MaxminBucket MakeMaxminBucket(float minimum, float maximum, bool is_finite, int32_t steps) {
  const float range = maximum - minimum;
  if (!is_finite || !(range <= kLargestFinite)) return {__builtin_nanf(""), 0.0f};
  if (range == 0.0f) return {0.0f, minimum + 0.0f};
  const float unit = range / static_cast<float>(steps);
  return {unit > 0.0f ? unit : kSmallestFloat, minimum + 0.0f};
}

// The position of x among the levels, at least 0.
TY_INLINE float MaxminPosition(float x, MaxminBucket bucket) {
  return (x - bucket.minimum) / bucket.unit;
}

// Only where unit > 0. Comparing the fraction with the draw, not flooring position + draw: that sum rounds up to the
// next integer now and then, which would move values that lie on a level.
TY_INLINE int32_t MaxminCode(float x, MaxminBucket bucket, float draw, int32_t steps) {
  const float position = MaxminPosition(x, bucket);
  const int32_t below = static_cast<int32_t>(position);
  const int32_t code = below + (draw < position - static_cast<float>(below) ? 1 : 0);
  return code < steps ? code : steps;  // the position of the maximum may lie an ulp above steps
}

TY_INLINE float MaxminValue(int32_t code, MaxminBucket bucket) {
  return __builtin_fmaf(bucket.unit, static_cast<float>(code), bucket.minimum);
}

// ---- Level tables: a sign, and the index of a magnitude in units of the bucket's norm.

// Whether u in [low, high], between two neighbouring levels, goes to the upper one. high = infinity: never.
TY_INLINE bool GoesToUpperLevel(float u, float low, float high, float draw) {
  return draw * (high - low) < u - low;
}

// The code of bits = 1 + index bits: the sign above the index. Zero has no sign, so that it is one symbol.
TY_INLINE int32_t SignedCode(float x, int32_t index, int32_t sign_bit) {
  return index + (index > 0 && x < 0.0f ? sign_bit : 0);
}

TY_INLINE float LevelValue(int32_t code, int32_t sign_bit, const float* levels, float norm) {
  const float magnitude = levels[code & (sign_bit - 1)] * norm;
  return (code & sign_bit) != 0 ? -magnitude : magnitude;
}

}  // namespace trainyard::kernels
