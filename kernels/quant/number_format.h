// The narrow floating-point formats as templates over their fields, one value at a time, branch-free so that loops over
// them vectorise.
//
// Rounding to nearest breaks ties to even. Stochastic rounding goes up with probability (x - below) / (above - below),
// also between subnormals, so its mean is x: to 2^-(23 - mantissa bits) of a step between normal numbers exactly, to
// 2^-24 of a step between subnormals. Between 0 and the smallest subnormal likewise.
// NaN becomes the format's quiet NaN with the sign kept. What rounds beyond the largest finite value, and infinity,
// becomes that value (kSaturate) or infinity (kInfinity; E4M3 has none and gives NaN).
#pragma once

#include <cstdint>

#include "kernels/core/dtype.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels {

enum class Overflow { kSaturate, kInfinity };

// Fields of a format with kExponentBits + kMantissaBits + 1 bits. A value with exponent field e > 0 and mantissa m is
// 2^(e - kBias) (1 + m / 2^M), with e = 0 it is 2^(1 - kBias) m / 2^M.
template <typename T>
struct NumberFormat;
template <>
struct NumberFormat<BFloat16> {
  using Bits = uint16_t;
  static constexpr int kExponentBits = 8, kMantissaBits = 7, kBias = 127;
  static constexpr uint32_t kLargest = 0x7F7F, kInfinity = 0x7F80, kNan = 0x7FC0;
};
template <>
struct NumberFormat<Float16> {
  using Bits = uint16_t;
  static constexpr int kExponentBits = 5, kMantissaBits = 10, kBias = 15;
  static constexpr uint32_t kLargest = 0x7BFF, kInfinity = 0x7C00, kNan = 0x7E00;
};
template <>
struct NumberFormat<Float8E4M3> {  // no infinity: the top exponent is used for numbers up to 448
  using Bits = uint8_t;
  static constexpr int kExponentBits = 4, kMantissaBits = 3, kBias = 7;
  static constexpr uint32_t kLargest = 0x7E, kInfinity = 0x7F, kNan = 0x7F;
};
template <>
struct NumberFormat<Float8E5M2> {
  using Bits = uint8_t;
  static constexpr int kExponentBits = 5, kMantissaBits = 2, kBias = 15;
  static constexpr uint32_t kLargest = 0x7B, kInfinity = 0x7C, kNan = 0x7E;
};

namespace internal {

// 2^exponent for the exponents of normal floats.
constexpr float PowerOfTwo(int exponent) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(exponent + 127) << 23);
}

// Sign, overflow and NaN around a rounded magnitude.
template <typename T>
TY_INLINE T Finish(uint32_t bits, uint32_t rounded, Overflow overflow) {
  using Format = NumberFormat<T>;
  const uint32_t beyond = overflow == Overflow::kSaturate ? Format::kLargest : Format::kInfinity;
  uint32_t code = rounded > Format::kLargest ? beyond : rounded;
  code = (bits & 0x7FFFFFFF) > 0x7F800000 ? Format::kNan : code;
  const uint32_t sign = (bits >> 31) << (Format::kExponentBits + Format::kMantissaBits);
  return {static_cast<typename Format::Bits>(code | sign)};
}

// The exponent fields of float and of the format differ by this much, seen in float's bits.
template <typename T>
inline constexpr uint32_t kRebias = static_cast<uint32_t>(127 - NumberFormat<T>::kBias) << 23;

// Magnitudes under this are subnormal or zero in the format. Formats with float's own exponent need no such case.
template <typename T>
inline constexpr bool kHasOwnSubnormals = NumberFormat<T>::kBias != 127;
template <typename T>
inline constexpr uint32_t kSmallestNormal = static_cast<uint32_t>(128 - NumberFormat<T>::kBias) << 23;

}  // namespace internal

template <typename T>
TY_INLINE T RoundNearest(float x, Overflow overflow = Overflow::kInfinity) {
  using Format = NumberFormat<T>;
  constexpr int kDropped = 23 - Format::kMantissaBits;
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  const uint32_t odd = (magnitude >> kDropped) & 1;
  uint32_t rounded = (magnitude - internal::kRebias<T> + ((1u << (kDropped - 1)) - 1) + odd) >> kDropped;
  if constexpr (internal::kHasOwnSubnormals<T>) {
    // Adding a number whose last place is one subnormal step makes the hardware round to such steps.
    constexpr float kStepper = internal::PowerOfTwo(24 - Format::kBias - Format::kMantissaBits);
    const uint32_t shifted = __builtin_bit_cast(uint32_t, __builtin_bit_cast(float, magnitude) + kStepper);
    const uint32_t subnormal = shifted - __builtin_bit_cast(uint32_t, kStepper);
    rounded = magnitude < internal::kSmallestNormal<T> ? subnormal : rounded;
  }
  return internal::Finish<T>(bits, rounded, overflow);
}

// `word`: 32 random bits.
template <typename T>
TY_INLINE T RoundStochastic(float x, uint32_t word, Overflow overflow = Overflow::kInfinity) {
  using Format = NumberFormat<T>;
  constexpr int kDropped = 23 - Format::kMantissaBits;
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  uint32_t rounded = (magnitude - internal::kRebias<T> + (word >> (32 - kDropped))) >> kDropped;
  if constexpr (internal::kHasOwnSubnormals<T>) {
    constexpr float kSteps = internal::PowerOfTwo(Format::kBias + Format::kMantissaBits - 1);
    constexpr float kMostSteps = static_cast<float>(1 << Format::kMantissaBits);  // keeps the conversion in range
    const float all_steps = __builtin_bit_cast(float, magnitude) * kSteps;
    const float steps = all_steps < kMostSteps ? all_steps : kMostSteps;
    const int32_t below = static_cast<int32_t>(steps);
    // Centred draws: their mean is 1/2, so the 2^-23 grid they lie on does not bias the comparison.
    const float draw = (static_cast<float>(static_cast<int32_t>(word >> 9)) + 0.5f) * 0x1p-23f;
    // Sign bits rather than comparisons: of the latter the compiler makes branches, and the loop does not vectorise.
    const float rest = draw - (steps - static_cast<float>(below));
    const uint32_t subnormal = static_cast<uint32_t>(below) + (__builtin_bit_cast(uint32_t, rest) >> 31);
    const uint32_t is_subnormal = 0u - ((magnitude - internal::kSmallestNormal<T>) >> 31);  // all ones or none
    rounded = (subnormal & is_subnormal) | (rounded & ~is_subnormal);
  }
  return internal::Finish<T>(bits, rounded, overflow);
}

// Exact.
template <typename T>
TY_INLINE float WidenToFloat(T x) {
  using Format = NumberFormat<T>;
  constexpr int kDropped = 23 - Format::kMantissaBits;
  constexpr int kMagnitudeBits = Format::kExponentBits + Format::kMantissaBits;
  const uint32_t code = x.bits & ((1u << kMagnitudeBits) - 1);
  uint32_t magnitude = (code << kDropped) + internal::kRebias<T>;
  if constexpr (internal::kHasOwnSubnormals<T>) {
    constexpr float kStep = internal::PowerOfTwo(1 - Format::kBias - Format::kMantissaBits);
    const float subnormal = static_cast<float>(static_cast<int32_t>(code)) * kStep;
    magnitude = code < (1u << Format::kMantissaBits) ? __builtin_bit_cast(uint32_t, subnormal) : magnitude;
    magnitude = code > Format::kLargest ? 0x7FC00000 : magnitude;
    magnitude = code == Format::kInfinity && Format::kInfinity != Format::kNan ? 0x7F800000 : magnitude;
  }
  return __builtin_bit_cast(float, magnitude | (static_cast<uint32_t>(x.bits >> kMagnitudeBits) << 31));
}

}  // namespace trainyard::kernels
