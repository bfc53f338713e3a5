#include "worker/train/gan_metrics/mode_coverage.h"

#include <limits>

#include "base/check.h"

namespace trainyard::train {

ModeCoverage MeasureModes(const kernels::TensorView& samples, const std::vector<std::vector<double>>& centers,
                          double radius, int64_t min_samples) {
  TY_CHECK_EQ(samples.rank(), 2);
  TY_CHECK_GE(samples.dim(0), 1);
  TY_CHECK_GE(min_samples, 1);
  const int64_t dim = samples.dim(1);
  for (const std::vector<double>& center : centers) TY_CHECK_EQ(center.size(), static_cast<size_t>(dim));
  ModeCoverage coverage;
  coverage.samples_of_mode.resize(centers.size());
  int64_t high_quality = 0;
  for (int64_t n = 0; n < samples.dim(0); ++n) {
    const float* sample = samples.as<float>() + n * dim;
    double nearest = std::numeric_limits<double>::infinity();
    size_t mode = 0;
    for (size_t k = 0; k < centers.size(); ++k) {
      double squares = 0;
      for (int64_t i = 0; i < dim; ++i) {
        const double distance = static_cast<double>(sample[i]) - centers[k][static_cast<size_t>(i)];
        squares += distance * distance;
      }
      if (squares < nearest) {  // never with NaN
        nearest = squares;
        mode = k;
      }
    }
    if (nearest > radius * radius) continue;
    ++high_quality;
    ++coverage.samples_of_mode[mode];
  }
  for (int64_t count : coverage.samples_of_mode) coverage.modes_covered += count >= min_samples ? 1 : 0;
  coverage.high_quality_fraction = static_cast<double>(high_quality) / static_cast<double>(samples.dim(0));
  return coverage;
}

}  // namespace trainyard::train
