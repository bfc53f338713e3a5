// What a bucket's metadata is made of. Sums and extremes are kept in a fixed number of lanes and joined in a fixed
// order, so every CPU gives the same bits.
#pragma once

#include <cstdint>

namespace trainyard::kernels::internal {

struct BucketRange {
  float minimum = 0;
  float maximum = 0;
  bool is_finite = true;  // false if any value is NaN or infinite; the extremes then mean nothing
};

// count >= 1.
BucketRange RangeOf(const float* x, int64_t count);

// Largest magnitude; NaN if a value is not finite.
float LargestMagnitude(const float* x, int64_t count);

// sqrt(sum x^2) from sums in f64; NaN if a value, or the norm as a float, is not finite. At least every |x|.
float EuclideanNorm(const float* x, int64_t count);

// mean |x| from sums in f64; NaN if a value is not finite.
float MeanMagnitude(const float* x, int64_t count);

}  // namespace trainyard::kernels::internal
