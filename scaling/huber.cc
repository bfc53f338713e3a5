#include "scaling/huber.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace trainyard::scaling {
namespace {

constexpr double kFirstDamping = 1e-3;
constexpr double kLowestDamping = 1e-15;
constexpr double kHighestDamping = 1e12;

// Solves the symmetric positive definite m x = v in place by Cholesky; false if it is not that.
bool SolveSymmetric(std::vector<double>& m, std::vector<double>& v) {
  const size_t n = v.size();
  for (size_t j = 0; j < n; ++j) {
    for (size_t i = j; i < n; ++i) {
      double sum = m[i * n + j];
      for (size_t k = 0; k < j; ++k) sum -= m[i * n + k] * m[j * n + k];
      if (i == j) {
        if (!(sum > 0) || !std::isfinite(sum)) return false;
        m[j * n + j] = std::sqrt(sum);
      } else {
        m[i * n + j] = sum / m[j * n + j];
      }
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) v[i] -= m[i * n + k] * v[k];
    v[i] /= m[i * n + i];
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) v[i] -= m[k * n + i] * v[k];
    v[i] /= m[i * n + i];
  }
  return true;
}

enum class Curvature { kReweighted, kNewton };

class Descent {
 public:
  Descent(const HuberProblem& problem, std::vector<double> start)
      : problem_(problem), size_(static_cast<size_t>(problem.parameter_count)), x_(std::move(start)) {
    Clamp(x_);
    problem_.evaluate(x_, &residuals_, &jacobian_);
    cost_ = Cost(residuals_);
  }

  double cost() const { return cost_; }
  const std::vector<double>& x() const { return x_; }

  // False if no step lowers the cost.
  bool Step() {
    while (damping_ <= kHighestDamping) {
      double best_cost = cost_;
      std::vector<double> best;
      for (const Curvature curvature : {Curvature::kNewton, Curvature::kReweighted}) {
        std::vector<double> trial = Trial(curvature);
        if (trial.empty()) continue;
        problem_.evaluate(trial, &trial_residuals_, nullptr);
        const double cost = Cost(trial_residuals_);
        if (cost < best_cost) {
          best_cost = cost;
          best = std::move(trial);
        }
      }
      if (!best.empty()) {
        damping_ = std::max(damping_ / 8, kLowestDamping);
        x_ = std::move(best);
        cost_ = best_cost;
        problem_.evaluate(x_, &residuals_, &jacobian_);
        return true;
      }
      damping_ *= 6;
    }
    return false;
  }

 private:
  double Weight(size_t i) const { return problem_.weights.empty() ? 1.0 : problem_.weights[i]; }

  double Cost(const std::vector<double>& residuals) const {
    double sum = 0;
    for (size_t i = 0; i < residuals.size(); ++i) sum += Weight(i) * Huber(residuals[i], problem_.delta);
    return std::isfinite(sum) ? sum : std::numeric_limits<double>::infinity();
  }

  void Clamp(std::vector<double>& x) const {
    for (size_t k = 0; k < size_; ++k) x[k] = std::clamp(x[k], problem_.lowest[k], problem_.highest[k]);
  }

  // Empty if the equations cannot be solved.
  std::vector<double> Trial(Curvature curvature) const {
    std::vector<double> curvatures(size_ * size_), step(size_);
    for (size_t i = 0; i < residuals_.size(); ++i) {
      const double magnitude = std::abs(residuals_[i]);
      const double slope_weight = Weight(i) * (magnitude <= problem_.delta ? 1 : problem_.delta / magnitude);
      double bend_weight = slope_weight;
      if (curvature == Curvature::kNewton && magnitude > problem_.delta) bend_weight = 0;
      const double* const row = &jacobian_[i * size_];
      for (size_t k = 0; k < size_; ++k) {
        step[k] -= slope_weight * residuals_[i] * row[k];
        for (size_t l = 0; l <= k; ++l) curvatures[k * size_ + l] += bend_weight * row[k] * row[l];
      }
    }
    double largest = 0;
    for (size_t k = 0; k < size_; ++k) largest = std::max(largest, curvatures[k * size_ + k]);
    if (largest == 0) largest = 1;
    for (size_t k = 0; k < size_; ++k) {
      double& diagonal = curvatures[k * size_ + k];
      diagonal += damping_ * std::max(diagonal, 1e-12 * largest) + 1e-300;
    }
    if (!SolveSymmetric(curvatures, step)) return {};
    for (size_t k = 0; k < size_; ++k) step[k] += x_[k];
    Clamp(step);
    return step;
  }

  const HuberProblem& problem_;
  const size_t size_;
  std::vector<double> x_, residuals_, jacobian_, trial_residuals_;
  double cost_ = 0;
  double damping_ = kFirstDamping;
};

}  // namespace

double Huber(double residual, double delta) {
  const double magnitude = std::abs(residual);
  return magnitude <= delta ? residual * residual / 2 : delta * (magnitude - delta / 2);
}

Minimum MinimizeHuber(const HuberProblem& problem, std::vector<double> start, int max_iterations, double tolerance) {
  TY_CHECK_LE(problem.parameter_count, kMaxParameters);
  TY_CHECK_EQ(start.size(), static_cast<size_t>(problem.parameter_count));
  Minimum minimum;
  Descent descent(problem, std::move(start));
  int small_steps = 0;
  const double exact = 1e-28 * problem.residual_count;  // residuals of 1e-14: rounding
  while (minimum.iterations < max_iterations && std::isfinite(descent.cost()) && descent.cost() > exact) {
    const double before = descent.cost();
    ++minimum.iterations;
    if (!descent.Step()) break;
    // One small step may be a step around a kink.
    small_steps = before - descent.cost() <= tolerance * before ? small_steps + 1 : 0;
    if (small_steps == 3) break;
  }
  minimum.x = descent.x();
  minimum.cost = descent.cost();
  return minimum;
}

}  // namespace trainyard::scaling
