// Normal numbers with the same bits on host and device: libraries' log, sin and cos differ in their last bits, and a
// compiler may contract a product and a sum, so the functions are polynomials here and every sum of a product is an
// fma. Beside the exact values the errors are a few 1e-16, far below the rounding to float that follows.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/philox.h"
#include "kernels/core/simd.h"
#include "kernels/tangent/random_direction.h"

namespace trainyard::kernels::internal {

// log((word + 1) / 2^32), of numbers in (0, 1].
//
//   n = word + 1 = 2^e m, m in (sqrt(1/2), sqrt(2)]; f = (m - 1) / (m + 1), log m = 2 f (1 + f^2/3 + f^4/5 + ...)
TY_INLINE double LogOfFraction(uint32_t word) {
  const uint64_t bits = __builtin_bit_cast(uint64_t, static_cast<double>(word) + 1.0);
  const double whole = __builtin_bit_cast(double, (bits & 0x000FFFFFFFFFFFFFull) | 0x3FF0000000000000ull);  // [1, 2)
  const bool is_upper = whole > 1.4142135623730951;
  const double m = is_upper ? whole * 0.5 : whole;
  // At most 0: with exponent 0 the logarithm of m is all there is, to full relative precision.
  const auto exponent = static_cast<int32_t>(static_cast<uint32_t>(bits >> 52)) - 1023 - 32 + (is_upper ? 1 : 0);
  const double f = (m - 1.0) / (m + 1.0);
  const double s = f * f;  // below 0.0295: the eleventh term is below 3e-17
  double p = 1.0 / 21;
  p = std::fma(p, s, 1.0 / 19);
  p = std::fma(p, s, 1.0 / 17);
  p = std::fma(p, s, 1.0 / 15);
  p = std::fma(p, s, 1.0 / 13);
  p = std::fma(p, s, 1.0 / 11);
  p = std::fma(p, s, 1.0 / 9);
  p = std::fma(p, s, 1.0 / 7);
  p = std::fma(p, s, 1.0 / 5);
  p = std::fma(p, s, 1.0 / 3);
  p = std::fma(p, s, 1.0);
  const double log_m = 2.0 * f * p;
  return std::fma(static_cast<double>(exponent), 0.693147180559945309417, log_m);
}

// Cosine and sine of word / 2^32 of a full turn: quarters are split off in integers, which is exact, and the rest is
// within an eighth of a turn, where Taylor's polynomials of degree 15 and 16 are off by less than 1e-16.
TY_INLINE void CosineAndSine(uint32_t word, double* cosine, double* sine) {
  const uint32_t quarter = (word + 0x20000000u) >> 30;  // rounded to the nearest; wraps round
  const auto rest = static_cast<int32_t>(word - (quarter << 30));
  const double x = static_cast<double>(rest) * (6.283185307179586477 * 0x1p-32);
  const double s = x * x;
  double p = -1.0 / 1307674368000;
  p = std::fma(p, s, 1.0 / 6227020800);
  p = std::fma(p, s, -1.0 / 39916800);
  p = std::fma(p, s, 1.0 / 362880);
  p = std::fma(p, s, -1.0 / 5040);
  p = std::fma(p, s, 1.0 / 120);
  p = std::fma(p, s, -1.0 / 6);
  const double sine_of_rest = std::fma(x * s, p, x);
  double q = 1.0 / 20922789888000;
  q = std::fma(q, s, -1.0 / 87178291200);
  q = std::fma(q, s, 1.0 / 479001600);
  q = std::fma(q, s, -1.0 / 3628800);
  q = std::fma(q, s, 1.0 / 40320);
  q = std::fma(q, s, -1.0 / 720);
  q = std::fma(q, s, 1.0 / 24);
  q = std::fma(q, s, -1.0 / 2);
  const double cosine_of_rest = std::fma(q, s, 1.0);
  const bool is_odd = (quarter & 1) != 0;
  const double a = is_odd ? sine_of_rest : cosine_of_rest;
  const double b = is_odd ? cosine_of_rest : sine_of_rest;
  *cosine = ((quarter + 1) & 2) != 0 ? -a : a;
  *sine = (quarter & 2) != 0 ? -b : b;
}

TY_INLINE PhiloxKey RandomKeyOf(const DirectionKey& key) {
  return {.seed = key.seed, .step = key.direction, .purpose = kRandomDirection, .tensor = key.tensor};
}

// Entries 4 block .. 4 block + 3: both coordinates of two Box-Muller pairs.
TY_INLINE void DirectionNormals(const PhiloxKey& key, int64_t block, float (&out)[4]) {
  const std::array<uint32_t, 4> words = RandomBlock(key, static_cast<uint32_t>(block));
  for (int pair = 0; pair < 2; ++pair) {
    const double radius = std::sqrt(-2.0 * LogOfFraction(words[static_cast<size_t>(2 * pair)]));
    double cosine, sine;
    CosineAndSine(words[static_cast<size_t>(2 * pair + 1)], &cosine, &sine);
    out[2 * pair] = static_cast<float>(radius * cosine);
    out[2 * pair + 1] = static_cast<float>(radius * sine);
  }
}

}  // namespace trainyard::kernels::internal
