// E8M0, the scale of MXFP4: eight bits of exponent and nothing else (OCP Microscaling Formats 1.0, 5.4.1). Codes 0..254
// are 2^(code - 127), exactly also as float (2^-127 is subnormal there); 255 is NaN. There is no zero.
//
// From a positive number: the power below (kFloor), the nearest in the exponent (kNearest: the border between two
// powers is at their geometric mean, a number no float equals), or the power above (kCeil). What lies outside
// saturates; zero becomes 2^-127, infinity and NaN become NaN.
#pragma once

#include <cstdint>

#include "kernels/core/simd.h"

namespace trainyard::kernels {

enum class E8M0Rounding { kFloor, kNearest, kCeil };

inline constexpr uint32_t kE8M0Nan = 255;

// `magnitude` >= 0 or NaN with the sign bit clear.
TY_INLINE uint32_t E8M0Code(float magnitude, E8M0Rounding rounding) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, magnitude);
  const uint32_t exponent = bits >> 23;  // of float: the code itself
  const uint32_t mantissa = bits & 0x7FFFFF;
  const bool is_subnormal = exponent == 0;  // mantissa 2^-149, so 2^-127 has mantissa 2^22
  const uint32_t above_power = is_subnormal ? 0x400001u : 1u;
  const uint32_t above_middle = is_subnormal ? 0x5A827Au : 0x3504F4u;  // the least mantissa beyond sqrt 2
  const uint32_t goes_up = rounding == E8M0Rounding::kCeil ? above_power : above_middle;
  const uint32_t up = exponent + (mantissa >= goes_up ? 1u : 0u);
  const uint32_t saturated = up < 254u ? up : 254u;
  const uint32_t rounded = rounding == E8M0Rounding::kFloor ? exponent : saturated;
  return exponent == 255u ? kE8M0Nan : rounded;
}

// code <= 255.
TY_INLINE float E8M0Value(uint32_t code) {
  const uint32_t normal = code == kE8M0Nan ? 0x7FC00000u : code << 23;
  return __builtin_bit_cast(float, code == 0 ? 0x00400000u : normal);
}

// 1 / value, exactly.
TY_INLINE float E8M0Inverse(uint32_t code) {
  return E8M0Value(code == kE8M0Nan ? kE8M0Nan : 254u - code);
}

}  // namespace trainyard::kernels
