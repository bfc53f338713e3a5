// Minimises a sum of Huber losses of residuals that are smooth functions of a few parameters.
//
//   cost(x) = sum_i w_i h(r_i(x)),   h(r) = r^2 / 2 for |r| <= delta, else delta (|r| - delta / 2)
//
// Levenberg-Marquardt in which a step tries two curvatures and takes the better: that of iteratively reweighted least
// squares (residuals beyond delta weigh delta / |r|), which always leads down, and Newton's, which ignores them and so
// is fast near the minimum, where delta far below the noise makes the cost almost an L1 norm.
#pragma once

#include <functional>
#include <vector>

namespace trainyard::scaling {

double Huber(double residual, double delta);

struct HuberProblem {
  int residual_count = 0;
  int parameter_count = 0;  // at most kMaxParameters
  double delta = 1;         // > 0; infinity is plain least squares
  // Each parameter is kept inside these by clamping.
  std::vector<double> lowest, highest;
  // One a residual; empty: all 1.
  std::vector<double> weights;
  // Fills `residuals` and, unless null, `jacobian` (row-major: residuals x parameters). Pure.
  std::function<void(const std::vector<double>& x, std::vector<double>* residuals, std::vector<double>* jacobian)>
      evaluate;
};

inline constexpr int kMaxParameters = 256;

struct Minimum {
  std::vector<double> x;
  double cost = 0;  // infinity if the start has no finite cost
  int iterations = 0;
};

// Ends after `max_iterations`, or when nothing within reach lowers the cost by more than `tolerance` of it.
Minimum MinimizeHuber(const HuberProblem& problem, std::vector<double> start, int max_iterations,
                      double tolerance = 1e-15);

}  // namespace trainyard::scaling
