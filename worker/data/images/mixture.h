// Points drawn from a mixture of Gaussians of equal weight and one standard deviation: distributions of which we know
// everything, so that a generator's samples can be judged. Labels are the component numbers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/data/images/sample_source.h"

namespace trainyard::data {

class GaussianMixture final : public SampleSource {
 public:
  // centers: (components, dim), at least one each; stddev > 0.
  GaussianMixture(std::vector<std::vector<double>> centers, double stddev);

  // 8 components on a circle of that radius, the first at (radius, 0), counter-clockwise.
  static GaussianMixture Ring(double radius = 1.0, double stddev = 0.02);
  // 25 components at {-2, -1, 0, 1, 2}^2 * spacing.
  static GaussianMixture Grid(double spacing = 0.5, double stddev = 0.02);
  // One component.
  static GaussianMixture Gaussian(std::vector<double> mean, double stddev = 1.0);

  std::vector<int64_t> sample_shape() const override { return {dim_}; }
  int64_t count() const override { return 0; }
  int class_count() const override { return static_cast<int>(centers_.size()); }
  const std::vector<std::vector<double>>& centers() const { return centers_; }
  double stddev() const { return stddev_; }
  std::string Fingerprint() const override;

 private:
  void Draw(uint64_t seed, int64_t sample, float* values, int32_t* label) const override;
  void Reference(int64_t index, float* values, int32_t* label) const override;
  void DrawFrom(uint64_t seed, int64_t sample, uint16_t use, float* values, int32_t* label) const;

  const std::vector<std::vector<double>> centers_;
  const double stddev_;
  const int64_t dim_;
};

}  // namespace trainyard::data
