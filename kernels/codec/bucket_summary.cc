#include "kernels/codec/bucket_summary.h"

#include <cmath>

#include "kernels/codec/code.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kWidth = 2 * kLanes;  // loops of 16 are unrolled whole by GCC, which then vectorises them badly

struct Extremes {
  float minimum, maximum;
  uint32_t magnitude;
};

TY_SIMD void FindExtremes(const float* x, int64_t count, Extremes* extremes) {
  float minimum[kWidth], maximum[kWidth];
  uint32_t magnitude[kWidth];
  for (int lane = 0; lane < kWidth; ++lane) {
    minimum[lane] = maximum[lane] = x[0];
    magnitude[lane] = 0;
  }
  const int64_t whole = count / kWidth * kWidth;
  for (int64_t i = 0; i < whole; i += kWidth) {
    for (int lane = 0; lane < kWidth; ++lane) {
      const float value = x[i + lane];
      const uint32_t bits = FloatMagnitudeBits(value);
      minimum[lane] = value < minimum[lane] ? value : minimum[lane];
      maximum[lane] = value > maximum[lane] ? value : maximum[lane];
      magnitude[lane] = bits > magnitude[lane] ? bits : magnitude[lane];
    }
  }
  for (int64_t i = whole; i < count; ++i) {
    const float value = x[i];
    const uint32_t bits = FloatMagnitudeBits(value);
    minimum[0] = value < minimum[0] ? value : minimum[0];
    maximum[0] = value > maximum[0] ? value : maximum[0];
    magnitude[0] = bits > magnitude[0] ? bits : magnitude[0];
  }
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) {
      minimum[lane] = minimum[lane + half] < minimum[lane] ? minimum[lane + half] : minimum[lane];
      maximum[lane] = maximum[lane + half] > maximum[lane] ? maximum[lane + half] : maximum[lane];
      magnitude[lane] = magnitude[lane + half] > magnitude[lane] ? magnitude[lane + half] : magnitude[lane];
    }
  }
  *extremes = {minimum[0], maximum[0], magnitude[0]};
}

TY_SIMD uint32_t LargestMagnitudeBits(const float* x, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = FloatMagnitudeBits(x[i]);
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

// Squares of floats are exact in f64, so fusing them into the sum or not gives the same bits.
TY_SIMD double SumOfSquares(const float* x, int64_t count) {
  double lanes[kWidth] = {};
  const int64_t whole = count / kWidth * kWidth;
  for (int64_t i = 0; i < whole; i += kWidth) {
    for (int lane = 0; lane < kWidth; ++lane) {
      const double value = static_cast<double>(x[i + lane]);
      lanes[lane] += value * value;
    }
  }
  for (int64_t i = whole; i < count; ++i) lanes[i - whole] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double sum = 0;
  for (int lane = 0; lane < kWidth; ++lane) sum += lanes[lane];
  return sum;
}

TY_SIMD double SumOfMagnitudes(const float* x, int64_t count) {
  double lanes[kWidth] = {};
  const int64_t whole = count / kWidth * kWidth;
  for (int64_t i = 0; i < whole; i += kWidth) {
    for (int lane = 0; lane < kWidth; ++lane) lanes[lane] += static_cast<double>(__builtin_fabsf(x[i + lane]));
  }
  for (int64_t i = whole; i < count; ++i) lanes[i - whole] += static_cast<double>(__builtin_fabsf(x[i]));
  double sum = 0;
  for (int lane = 0; lane < kWidth; ++lane) sum += lanes[lane];
  return sum;
}

}  // namespace

BucketRange RangeOf(const float* x, int64_t count) {
  Extremes extremes;
  FindExtremes(x, count, &extremes);
  return {extremes.minimum, extremes.maximum, extremes.magnitude < kInfinityBits};
}

float LargestMagnitude(const float* x, int64_t count) {
  return FiniteOrNan(static_cast<double>(__builtin_bit_cast(float, LargestMagnitudeBits(x, count))));
}

float EuclideanNorm(const float* x, int64_t count) {
  return FiniteOrNan(std::sqrt(SumOfSquares(x, count)));
}

float MeanMagnitude(const float* x, int64_t count) {
  return FiniteOrNan(SumOfMagnitudes(x, count) / static_cast<double>(count));
}

}  // namespace trainyard::kernels::internal
