// The distribution that levels are fitted to (shared/methods/qoda.md 2.4): of u = |x| / norm of the bucket, each value
// weighted with norm^2, which makes the fitted error the true squared error.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/codec/level_code.h"

namespace trainyard::kernels {

inline constexpr int kHistogramBins = 4096;

// Bin b holds u in [b, b + 1) / kHistogramBins; u = 1 is in the last. Sums of histograms are histograms of the union,
// so ranks add them up: plain f64 arrays, one after the other.
struct LevelHistogram {
  std::array<double, kHistogramBins> mass = {};    // sum norm^2
  std::array<double, kHistogramBins> moment = {};  // sum norm^2 * u

  double total() const;
};

// Adds all buckets of `x`. Buckets of zeros and buckets with a value that is not finite add nothing. On the calling
// thread and in order: it runs in a handful of steps of a job.
void AddToHistogram(const float* x, int64_t elements, LevelNorm norm, int64_t bucket_size, LevelHistogram* histogram);

}  // namespace trainyard::kernels
