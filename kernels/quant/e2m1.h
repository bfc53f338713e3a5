// E2M1, the four-bit float of MXFP4 and NVFP4 (OCP Microscaling Formats 1.0, 5.3.3): bit 3 is the sign, codes 0..7 are
// 0, 0.5, 1, 1.5, 2, 3, 4, 6. It has neither infinity nor NaN.
//
// Rounding to nearest is that of number_format.h, ties to even (5 -> 4, 2.5 -> 2, 0.25 -> 0). Stochastic rounding goes
// up with probability (|u| - below) / (above - below), to 2^-23. Both saturate at 6, and NaN becomes 6: who rounds must
// keep NaN in a scale.
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

// A number in units of the scale, to its code: nearest.
TY_INLINE uint8_t E2M1Code(float u) {
  return RoundNearest<Float4E2M1>(u).bits;
}

// Stochastically, `word`: 32 random bits. Simpler than the general RoundStochastic, which the compiler does not
// vectorise for this format: three octaves of steps 1/2, 1 and 2, the first two of which begin at 0.
TY_INLINE uint8_t E2M1Code(float u, uint32_t word) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, u);
  const float magnitude = __builtin_bit_cast(float, bits & 0x7FFFFFFF);
  const float bounded = magnitude < kE2M1Largest ? magnitude : kE2M1Largest;
  const int32_t exponent = static_cast<int32_t>(__builtin_bit_cast(uint32_t, bounded) >> 23) - 127;
  const int32_t octave = exponent > 0 ? exponent : 0;                                                  // 0, 1, 2
  const float steps = bounded * __builtin_bit_cast(float, static_cast<uint32_t>(128 - octave) << 23);  // exact
  const int32_t below = static_cast<int32_t>(steps);
  // Centred draws, whose mean is 1/2; the sign bit rather than a comparison, of which the compiler makes a branch.
  const float draw = (static_cast<float>(static_cast<int32_t>(word >> 9)) + 0.5f) * 0x1p-23f;
  const float rest = draw - (steps - static_cast<float>(below));
  const uint32_t up = __builtin_bit_cast(uint32_t, rest) >> 31;
  return static_cast<uint8_t>(static_cast<uint32_t>(below + 2 * octave) + up + (bits >> 31 << 3));
}

// The same roundings to the level itself, E2M1Value(E2M1Code(u)), in float arithmetic alone: what emulation needs, and
// several times as fast as over codes. The power of two of a magnitude, at least 1, is twice the step around it.
TY_INLINE float E2M1Level(float u) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, u);
  const float magnitude = __builtin_bit_cast(float, bits & 0x7FFFFFFF);
  const float bounded = magnitude < kE2M1Largest ? magnitude : kE2M1Largest;
  const uint32_t exponent = __builtin_bit_cast(uint32_t, bounded) & 0x7F800000;
  const uint32_t power = exponent > 0x3F800000 ? exponent : 0x3F800000;
  // Adding a number whose last place is one step makes the hardware round to steps.
  const float stepper = __builtin_bit_cast(float, power) * 0x1.8p22f;
  const float level = (bounded + stepper) - stepper;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, level) | (bits & 0x80000000));
}

TY_INLINE float E2M1Level(float u, uint32_t word) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, u);
  const float magnitude = __builtin_bit_cast(float, bits & 0x7FFFFFFF);
  const float bounded = magnitude < kE2M1Largest ? magnitude : kE2M1Largest;
  const uint32_t exponent = __builtin_bit_cast(uint32_t, bounded) & 0x7F800000;
  const uint32_t power = exponent > 0x3F800000 ? exponent : 0x3F800000;
  const float steps = bounded * __builtin_bit_cast(float, 0x7F800000 - power);  // exact: two over the power
  const float below = static_cast<float>(static_cast<int32_t>(steps));
  const float draw = (static_cast<float>(static_cast<int32_t>(word >> 9)) + 0.5f) * 0x1p-23f;
  const uint32_t up = __builtin_bit_cast(uint32_t, draw - (steps - below)) >> 31;
  const float level = (below + static_cast<float>(static_cast<int32_t>(up))) * __builtin_bit_cast(float, power) * 0.5f;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, level) | (bits & 0x80000000));
}

// code < 16.
TY_INLINE float E2M1Value(uint8_t code) {
  return WidenToFloat(Float4E2M1{code});
}

}  // namespace trainyard::kernels
