// exp, tanh and sigmoid as branch-free float polynomials, so that loops over them vectorise; libm's do not. The same
// operations in the same order at every vector width. Errors are checked by math_test.cc against libm in double.
#pragma once

#include <cstdint>

#include "kernels/core/simd.h"

namespace trainyard::kernels {

// e^x: at most 2 ulp where the result is a normal number, at most 1 subnormal step below; 0 from x < -104, infinity
// from x > 88.73; NaN stays NaN.
//
//   n = round(x / ln 2), r = x - n ln 2 (ln 2 in two parts), e^x = 2^n (1 + r + r^2 P(r)), P from Cephes' expf
TY_INLINE float FastExp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float shifted = x * 1.44269504088896341f + kRound;
  const float n = shifted - kRound;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // 2^n as two factors: n reaches from -150 (the result is subnormal or 0) to 128 (infinity).
  const uint32_t exponent = __builtin_bit_cast(uint32_t, shifted) - __builtin_bit_cast(uint32_t, kRound);
  const uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(exponent) >> 1);
  const float scale_a = __builtin_bit_cast(float, (half + 127u) << 23);
  const float scale_b = __builtin_bit_cast(float, (exponent - half + 127u) << 23);
  return p * scale_a * scale_b;
}

// 1 / (1 + e^-x): at most 4 ulp where e^-x is finite (x > -88.7), 0 below.
TY_INLINE float FastSigmoid(float x) {
  return 1.0f / (1.0f + FastExp(-x));
}

// tanh: at most 3 ulp everywhere.
//
//   |x| < 0.625: x + x^3 Q(x^2), Q from Cephes' tanhf; else sign(x) (1 - 2 / (e^(2|x|) + 1))
TY_INLINE float FastTanh(float x) {
  const float magnitude = x < 0.0f ? -x : x;
  const float square = x * x;
  float q = -5.70498872745e-3f;
  q = q * square + 2.06390887954e-2f;
  q = q * square - 5.37397155531e-2f;
  q = q * square + 1.33314422036e-1f;
  q = q * square - 3.33332819422e-1f;
  const float small = q * square * x + x;
  const float large = 1.0f - 2.0f / (FastExp(2.0f * magnitude) + 1.0f);
  const float signed_large = x < 0.0f ? -large : large;
  return magnitude < 0.625f ? small : signed_large;
}

}  // namespace trainyard::kernels
