// E2M1, the four-bit float of MXFP4 and NVFP4 (OCP Microscaling Formats 1.0, 5.3.3): bit 3 is the sign, codes 0..7 are
// 0, 0.5, 1, 1.5, 2, 3, 4, 6. It has neither infinity nor NaN.
//
// Rounding is that of number_format.h: RoundNearest<Float4E2M1>, ties to even (5 -> 4, 2.5 -> 2, 0.25 -> 0), and
// RoundStochastic<Float4E2M1>. Both saturate at 6, and NaN becomes 6 with its sign: who rounds must keep NaN in a
// scale.
#pragma once

#include "kernels/quant/number_format.h"

namespace trainyard::kernels {

// The code lies in the low four bits.
struct Float4E2M1 {
  uint8_t bits;
};

template <>
struct NumberFormat<Float4E2M1> {
  using Bits = uint8_t;
  static constexpr int kExponentBits = 2, kMantissaBits = 1, kBias = 1;
  static constexpr uint32_t kLargest = 7, kInfinity = 7, kNan = 7;
};

inline constexpr float kE2M1Largest = 6.0f;

// A number in units of the scale, to its code.
TY_INLINE uint8_t E2M1Code(float u) {
  return RoundNearest<Float4E2M1>(u).bits;
}
TY_INLINE uint8_t E2M1Code(float u, uint32_t word) {
  return RoundStochastic<Float4E2M1>(u, word).bits;
}

// code < 16.
TY_INLINE float E2M1Value(uint8_t code) {
  return WidenToFloat(Float4E2M1{code});
}

}  // namespace trainyard::kernels
