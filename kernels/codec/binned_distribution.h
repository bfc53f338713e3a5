// Integrals over a histogram. Within a bin the density is the straight line that has the bin's mass and first moment
// (kept from below 0), so distributions with a density that is linear between bin edges are represented exactly.
#pragma once

#include <vector>

#include "kernels/codec/level_histogram.h"

namespace trainyard::kernels::internal {

// Integrals of 1, u and u^2 over a range of u.
struct Moments {
  double mass = 0;
  double first = 0;
  double second = 0;
};
inline Moments operator-(const Moments& a, const Moments& b) {
  return {a.mass - b.mass, a.first - b.first, a.second - b.second};
}

class BinnedDistribution {
 public:
  explicit BinnedDistribution(const LevelHistogram& histogram);

  double total() const { return below_.back().mass; }
  Moments Below(double u) const;       // over [0, u], u in [0, 1]
  double Quantile(double mass) const;  // the u below which there is so much mass

 private:
  const LevelHistogram& histogram_;
  std::vector<double> tilt_;    // a in density ~ 1 + a (2 t - 1), t in [0, 1] within the bin; in [-1, 1]
  std::vector<Moments> below_;  // of the bins before each, and of all
};

}  // namespace trainyard::kernels::internal
