#include "kernels/codec/binned_distribution.h"

#include <algorithm>
#include <cmath>

namespace trainyard::kernels::internal {
namespace {

constexpr double kBinWidth = 1.0 / kHistogramBins;

// Of a bin's part [0, t], with all moments of u = begin + t * width.
Moments PartOfBin(double begin, double mass, double tilt, double t) {
  const double t2 = t * t;
  const double m0 = mass * (t + tilt * (t2 - t));
  const double m1 = mass * (t2 / 2 + tilt * (2 * t * t2 / 3 - t2 / 2));
  const double m2 = mass * (t * t2 / 3 + tilt * (t2 * t2 / 2 - t * t2 / 3));
  return {m0, begin * m0 + kBinWidth * m1,
          begin * begin * m0 + 2 * begin * kBinWidth * m1 + kBinWidth * kBinWidth * m2};
}

}  // namespace

BinnedDistribution::BinnedDistribution(const LevelHistogram& histogram) : histogram_(histogram) {
  tilt_.reserve(kHistogramBins);
  below_.reserve(kHistogramBins + 1);
  Moments sum;
  below_.push_back(sum);
  for (size_t bin = 0; bin < static_cast<size_t>(kHistogramBins); ++bin) {
    const double begin = static_cast<double>(bin) * kBinWidth;
    const double mass = histogram.mass[bin];
    const double mean = mass > 0 ? (histogram.moment[bin] / mass - begin) / kBinWidth : 0.5;
    tilt_.push_back(std::clamp(6 * (mean - 0.5), -1.0, 1.0));
    const Moments whole = PartOfBin(begin, mass, tilt_.back(), 1);
    sum = {sum.mass + whole.mass, sum.first + whole.first, sum.second + whole.second};
    below_.push_back(sum);
  }
}

Moments BinnedDistribution::Below(double u) const {
  const size_t bin = static_cast<size_t>(std::clamp(u * kHistogramBins, 0.0, kHistogramBins - 1.0));
  const double begin = static_cast<double>(bin) * kBinWidth;
  const double t = std::clamp((u - begin) / kBinWidth, 0.0, 1.0);
  const Moments part = PartOfBin(begin, histogram_.mass[bin], tilt_[bin], t);
  const Moments& before = below_[bin];
  return {before.mass + part.mass, before.first + part.first, before.second + part.second};
}

double BinnedDistribution::Quantile(double mass) const {
  const auto above = std::upper_bound(below_.begin() + 1, below_.end() - 1, mass,
                                      [](double value, const Moments& moments) { return value < moments.mass; });
  const size_t bin = static_cast<size_t>(above - below_.begin()) - 1;
  const double bin_mass = histogram_.mass[bin];
  if (!(bin_mass > 0)) return static_cast<double>(bin) * kBinWidth;
  // a t^2 + (1 - a) t = share, by the form of the root that does not cancel.
  const double share = std::clamp((mass - below_[bin].mass) / bin_mass, 0.0, 1.0);
  const double b = 1 - tilt_[bin];
  const double divisor = b + std::sqrt(b * b + 4 * tilt_[bin] * share);
  const double t = divisor > 0 ? 2 * share / divisor : 0.0;
  return (static_cast<double>(bin) + std::clamp(t, 0.0, 1.0)) * kBinWidth;
}

}  // namespace trainyard::kernels::internal
