// How many modes of a known mixture a generator has found (Srivastava et al., "VEEGAN", NeurIPS 2017): a sample is of
// high quality if it lies within `radius` of the nearest centre (they: 3 standard deviations); a mode is covered if it
// has at least `min_samples` such samples.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/tensor.h"

namespace trainyard::train {

struct ModeCoverage {
  int64_t modes_covered = 0;
  double high_quality_fraction = 0;      // of the samples
  std::vector<int64_t> samples_of_mode;  // high-quality ones
};

// samples: f32 (n, dim), n >= 1; centers: one dim-vector a mode. A sample with NaN is of no mode.
ModeCoverage MeasureModes(const kernels::TensorView& samples, const std::vector<std::vector<double>>& centers,
                          double radius, int64_t min_samples = 1);

}  // namespace trainyard::train
