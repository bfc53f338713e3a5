#include "kernels/codec/level_fit.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "kernels/codec/binned_distribution.h"

namespace trainyard::kernels {
namespace {

using internal::BinnedDistribution;
using internal::Moments;

constexpr double kGap = 1.25e-6;  // what rounding to float leaves of it is still kLevelGap

double Psi(const BinnedDistribution& distribution, absl::Span<const double> levels) {
  double error = 0;
  Moments below_low = distribution.Below(levels[0]);
  for (size_t j = 1; j < levels.size(); ++j) {
    const Moments below_high = distribution.Below(levels[j]);
    const Moments between = below_high - below_low;
    error += (levels[j - 1] + levels[j]) * between.first - between.second - levels[j - 1] * levels[j] * between.mass;
    below_low = below_high;
  }
  return error;
}

// Moves levels apart where they are closer than the gap: up from below, then down from 1.
void KeepGaps(std::vector<double>* levels) {
  std::vector<double>& l = *levels;
  for (size_t j = 1; j + 1 < l.size(); ++j) l[j] = std::max(l[j], l[j - 1] + kGap);
  for (size_t j = l.size() - 2; j > 0; --j) l[j] = std::min(l[j], l[j + 1] - kGap);
}

void Sweep(const BinnedDistribution& distribution, std::vector<double>* levels) {
  std::vector<double>& l = *levels;
  for (size_t j = 1; j + 1 < l.size(); ++j) {
    const double low = l[j - 1];
    const double high = l[j + 1];
    const Moments below_high = distribution.Below(high);
    const Moments between = below_high - distribution.Below(low);
    if (!(between.mass > 0)) continue;  // nothing there to fit
    const double best = distribution.Quantile(below_high.mass - (between.first - low * between.mass) / (high - low));
    l[j] = std::max(low + kGap, std::min(best, high - kGap));
  }
}

std::vector<double> Fit(const BinnedDistribution& distribution, std::vector<double> levels, int sweeps) {
  KeepGaps(&levels);
  for (int sweep = 0; sweep < sweeps; ++sweep) Sweep(distribution, &levels);
  return levels;
}

std::vector<double> ToDouble(absl::Span<const float> levels) {
  TY_CHECK_GE(levels.size(), size_t{2});
  TY_CHECK(levels.front() == 0.0f && levels.back() == 1.0f);
  return {levels.begin(), levels.end()};
}

std::vector<float> ToFloat(const std::vector<double>& levels) {
  return {levels.begin(), levels.end()};
}

std::vector<double> Quantiles(const BinnedDistribution& distribution, size_t count) {
  std::vector<double> levels(count);
  const double share = distribution.total() / static_cast<double>(count - 1);
  for (size_t j = 1; j + 1 < count; ++j) levels[j] = distribution.Quantile(share * static_cast<double>(j));
  levels.back() = 1;
  return levels;
}

}  // namespace

std::vector<float> UniformLevels(int steps) {
  TY_CHECK_GE(steps, 1);
  std::vector<float> levels;
  for (int j = 0; j <= steps; ++j) levels.push_back(static_cast<float>(j) / static_cast<float>(steps));
  return levels;
}

std::vector<float> ExponentialLevels(int steps) {
  TY_CHECK(steps >= 1 && steps <= 127);
  std::vector<float> levels = {0.0f};
  for (int j = steps - 1; j >= 0; --j) levels.push_back(std::ldexp(1.0f, -j));
  return levels;
}

double LevelError(const LevelHistogram& histogram, absl::Span<const float> levels) {
  return Psi(BinnedDistribution(histogram), ToDouble(levels));
}

std::vector<float> FitLevels(const LevelHistogram& histogram, absl::Span<const float> start, int sweeps) {
  return ToFloat(Fit(BinnedDistribution(histogram), ToDouble(start), sweeps));
}

std::vector<float> RefitLevels(const LevelHistogram& histogram, absl::Span<const float> current, int sweeps) {
  const BinnedDistribution distribution(histogram);
  const std::vector<double> old = ToDouble(current);
  const int steps = static_cast<int>(current.size()) - 1;
  double least = 0.99 * Psi(distribution, old);
  std::vector<float> best(current.begin(), current.end());
  for (std::vector<double> start : {old, Quantiles(distribution, current.size()), ToDouble(UniformLevels(steps)),
                                    ToDouble(ExponentialLevels(steps))}) {
    const std::vector<double> fitted = Fit(distribution, std::move(start), sweeps);
    const double error = Psi(distribution, fitted);
    if (error < least) {
      least = error;
      best = ToFloat(fitted);
    }
  }
  return best;
}

}  // namespace trainyard::kernels
