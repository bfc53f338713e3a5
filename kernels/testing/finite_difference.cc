#include "kernels/testing/finite_difference.h"

#include "base/check.h"

namespace trainyard::kernels::testing {

std::vector<double> FiniteDifferences(std::vector<double>& x, const std::function<double()>& loss) {
  constexpr double kStep = 1e-5;
  std::vector<double> gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double value = x[i];
    x[i] = value + kStep;
    const double above = loss();
    x[i] = value - kStep;
    const double below = loss();
    x[i] = value;
    gradient[i] = (above - below) / (2 * kStep);
  }
  return gradient;
}

double Dot(const std::vector<double>& a, const std::vector<double>& b) {
  TY_CHECK_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace trainyard::kernels::testing
