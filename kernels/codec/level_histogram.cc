#include "kernels/codec/level_histogram.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace trainyard::kernels {

double LevelHistogram::total() const {
  double sum = 0;
  for (const double m : mass) sum += m;
  return sum;
}

void AddToHistogram(const float* x, int64_t elements, LevelNorm norm, int64_t bucket_size, LevelHistogram* histogram) {
  TY_CHECK(IsBucketSize(bucket_size));
  for (int64_t begin = 0; begin < elements; begin += bucket_size) {
    const int64_t end = std::min(elements, begin + bucket_size);
    const float bucket_norm = BucketNorm(x + begin, end - begin, norm);
    if (!(bucket_norm > 0.0f)) continue;
    const double weight = static_cast<double>(bucket_norm) * static_cast<double>(bucket_norm);
    for (int64_t i = begin; i < end; ++i) {
      const float u = std::fabs(x[i]) / bucket_norm;
      const int bin = std::min(kHistogramBins - 1, static_cast<int>(u * static_cast<float>(kHistogramBins)));
      histogram->mass[static_cast<size_t>(bin)] += weight;
      histogram->moment[static_cast<size_t>(bin)] += weight * static_cast<double>(u);
    }
  }
}

}  // namespace trainyard::kernels
