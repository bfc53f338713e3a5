#include "scaling/capacity.h"

#include <cmath>

#include "base/check.h"
#include "scaling/golden_section.h"

namespace trainyard::scaling {
namespace {

double Density(double x) {
  return std::isinf(x) ? 0 : std::exp(-x * x / 2) / std::sqrt(2 * M_PI);
}
double Distribution(double x) {
  return std::erfc(-x / M_SQRT2) / 2;
}

// Integral of (z - q)^2 under the normal density over [low, high].
double CellError(double q, double low, double high) {
  const double mass = Distribution(high) - Distribution(low);
  const double first = Density(high) - Density(low);
  const double second = (std::isinf(high) ? 0 : high * Density(high)) - (std::isinf(low) ? 0 : low * Density(low));
  return (1 + q * q) * mass - second + 2 * q * first;
}

}  // namespace

double GaussianError(const std::vector<double>& levels) {
  TY_CHECK_GE(levels.size(), 2u);
  const auto error = [&](double log_scale) {
    const double scale = std::exp(log_scale);
    double sum = 0;
    for (size_t i = 0; i < levels.size(); ++i) {
      const double low = i == 0 ? -INFINITY : scale * (levels[i - 1] + levels[i]) / 2;
      const double high = i + 1 == levels.size() ? INFINITY : scale * (levels[i] + levels[i + 1]) / 2;
      sum += CellError(scale * levels[i], low, high);
    }
    return sum;
  };
  // The largest level ends up between 0.5 and 10 standard deviations.
  const double log_scale = MinimizeOnInterval(error, std::log(0.5 / levels.back()), std::log(10 / levels.back()));
  return error(log_scale);
}

double UniformGridError(int bits) {
  TY_CHECK(bits >= 1 && bits <= 12);
  std::vector<double> levels;
  const int count = 1 << bits;
  for (int i = 0; i < count; ++i) levels.push_back(i + 0.5 - count / 2.0);
  return GaussianError(levels);
}

double Fp4Error() {
  return GaussianError({-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6});
}

double Capacity(double gaussian_error, const CapacityLaw& law) {
  if (!(gaussian_error > 0)) return gaussian_error == 0 ? law.l0 : 0;
  if (gaussian_error >= 1) return 0;
  return law.l0 * std::pow(std::tanh(law.f * std::log(gaussian_error) / std::log(0.25)), law.c);
}

double SparseMultiplier(const SparsityLaw& law, double sparsity) {
  const double sparse = law.a * std::pow(1 - sparsity, law.b) + law.c;
  return std::pow(sparse / (law.a + law.c), -1 / law.n);
}

double SparseEfficiency(const SparsityLaw& law, double sparsity) {
  return (1 - sparsity) * SparseMultiplier(law, sparsity);
}

}  // namespace trainyard::scaling
