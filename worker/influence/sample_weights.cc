#include "worker/influence/sample_weights.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/tangent/random_direction.h"

namespace trainyard::influence {
namespace {

using Numbers = std::vector<double>;

constexpr double kTolerance = 1e-6;  // of the residual, in weights whose mean is 1
constexpr int kMostIterations = 20'000;
constexpr int kBisections = 200;

double Dot(const Numbers& a, const Numbers& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

double ClippedSum(const Numbers& p, double nu, double lambda, double maximum) {
  double sum = 0;
  for (const double value : p) sum += std::clamp((value - nu) / lambda, 0.0, maximum);
  return sum;
}

// Without a maximum: the largest prefix of the sorted influences whose own nu lies below its last member.
double UnboundedNu(const Numbers& p, double lambda) {
  Numbers sorted = p;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const double total = static_cast<double>(p.size()) * lambda;
  double sum = 0, nu = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    sum += sorted[i];
    const double candidate = (sum - total) / static_cast<double>(i + 1);
    if (i > 0 && sorted[i] <= candidate) break;
    nu = candidate;
  }
  return nu;
}

double BoundedNu(const Numbers& p, double lambda, double maximum) {
  const auto [low_it, high_it] = std::minmax_element(p.begin(), p.end());
  double low = *low_it - lambda * maximum, high = *high_it;
  const auto total = static_cast<double>(p.size());
  for (int i = 0; i < kBisections; ++i) {
    const double middle = low + (high - low) / 2;
    (ClippedSum(p, middle, lambda, maximum) > total ? low : high) = middle;
  }
  // Which entries are free is known now; the sum over them fixes nu without the bisection's error.
  double free_sum = 0, fixed = 0;
  int64_t free_count = 0;
  for (const double value : p) {
    const double w = (value - high) / lambda;
    if (w >= maximum) {
      fixed += maximum;
    } else if (w > 0) {
      free_sum += value;
      ++free_count;
    }
  }
  return free_count == 0 ? high : (free_sum - lambda * (total - fixed)) / static_cast<double>(free_count);
}

int64_t Support(const Numbers& w) {
  return std::count_if(w.begin(), w.end(), [](double value) { return value > 0; });
}

// Eigenvalue number `index` (ascending) of a symmetric tridiagonal matrix, by Sturm's count.
double TridiagonalEigenvalue(const Numbers& diagonal, const Numbers& below, size_t index) {
  double bound = 0;
  for (size_t i = 0; i < diagonal.size(); ++i) {
    bound = std::max(bound, std::abs(diagonal[i]) + (i > 0 ? std::abs(below[i - 1]) : 0.0) +
                                (i < below.size() ? std::abs(below[i]) : 0.0));
  }
  double low = -bound, high = bound;
  for (int step = 0; step < kBisections; ++step) {
    const double middle = low + (high - low) / 2;
    size_t smaller = 0;
    double d = 1;
    for (size_t i = 0; i < diagonal.size(); ++i) {
      const double square = i > 0 ? below[i - 1] * below[i - 1] : 0;
      d = diagonal[i] - middle - square / d;
      if (d == 0) d = 1e-300;
      if (d < 0) ++smaller;
    }
    (smaller > index ? high : low) = middle;
  }
  return low + (high - low) / 2;
}

// gradient = -p + eta Q w + lambda w.
void Gradient(const Numbers& p, const Numbers& w, const WeightProblem& problem, double lambda, Numbers* gradient) {
  gradient->assign(w.size(), 0);
  if (problem.quadratic) problem.quadratic(w, gradient);
  for (size_t i = 0; i < w.size(); ++i) {
    (*gradient)[i] = -p[i] + problem.learning_rate * (*gradient)[i] + lambda * w[i];
  }
}

// The Euclidean projection of `point` on the feasible set.
Numbers Project(const Numbers& point, double maximum) {
  return ProjectOnSimplex(point, 1, maximum);
}

class Solver {
 public:
  Solver(const Numbers& p, const WeightProblem& problem) : p_(p), problem_(problem) {
    if (!problem_.quadratic) return;
    const Spectrum spectrum = EstimateSpectrum(static_cast<int64_t>(p.size()), problem_.quadratic);
    largest_ = std::max(0.0, problem_.learning_rate * spectrum.largest);
    const double smallest = problem_.learning_rate * spectrum.smallest;
    // Strongly convex by a hundredth of the curvature that is there.
    if (smallest < 0) floor_ = -1.01 * smallest;
    previous_.assign(p.size(), 1.0);
  }

  double floor() const { return floor_; }

  absl::StatusOr<Numbers> At(double lambda) {
    lambda = std::max(lambda, floor_);
    if (!problem_.quadratic) return ProjectOnSimplex(p_, lambda, problem_.maximum);
    const double step = 1 / (lambda + 1.05 * largest_);
    Numbers w = previous_, look = w, gradient, next;
    double momentum = 1;
    for (int i = 0; i < kMostIterations; ++i) {
      if (i % 10 == 0 && StepResidual(w, lambda, step) < kTolerance) {
        previous_ = w;
        return w;
      }
      Gradient(p_, look, problem_, lambda, &gradient);
      next = look;
      for (size_t j = 0; j < next.size(); ++j) next[j] -= step * gradient[j];
      next = Project(next, problem_.maximum);
      // Restart where the momentum points uphill (O'Donoghue and Candes, arXiv:1204.3982).
      double uphill = 0;
      for (size_t j = 0; j < next.size(); ++j) uphill += (look[j] - next[j]) * (next[j] - w[j]);
      const double grown = uphill > 0 ? 1 : (1 + std::sqrt(1 + 4 * momentum * momentum)) / 2;
      const double ratio = uphill > 0 ? 0 : (momentum - 1) / grown;
      for (size_t j = 0; j < next.size(); ++j) look[j] = next[j] + ratio * (next[j] - w[j]);
      momentum = grown;
      w = next;
    }
    return absl::FailedPreconditionError(absl::StrCat("weights: the residual is still ",
                                                      KktResidual(p_, w, problem_, lambda), " after ", kMostIterations,
                                                      " iterations with lambda ", lambda));
  }

  // |w - Proj(w - s gradient)|_inf / s, with s = 1 unless the curvature makes that step a long one.
  double StepResidual(const Numbers& w, double lambda, double step) const {
    step = std::min(1.0, step);
    Numbers moved;
    Gradient(p_, w, problem_, lambda, &moved);
    for (size_t i = 0; i < w.size(); ++i) moved[i] = w[i] - step * moved[i];
    moved = Project(moved, problem_.maximum);
    double worst = 0;
    for (size_t i = 0; i < w.size(); ++i) worst = std::max(worst, std::abs(w[i] - moved[i]));
    return worst / std::max(step, 1e-3);
  }

  // The lambda where `measure`, which grows with it, reaches `goal` from below.
  absl::StatusOr<double> Reach(double goal, const std::function<double(const Numbers&)>& measure) {
    const auto [low_it, high_it] = std::minmax_element(p_.begin(), p_.end());
    const double range = std::max(*high_it - *low_it, 1e-12 * (1 + std::abs(*high_it)));
    // Far below, one sample has all the weight; far above, all have the same.
    double low = std::log(range * 1e-9), high = std::log((range + largest_ * std::sqrt(double(p_.size()))) * 1e6);
    if (floor_ > 0) low = std::max(low, std::log(floor_));
    high = std::max(high, low + 20);
    for (int i = 0; i < (problem_.quadratic ? 60 : kBisections); ++i) {
      const double middle = (low + high) / 2;
      TY_ASSIGN_OR_RETURN(const Numbers w, At(std::exp(middle)));
      const double value = measure(w);
      if (value == goal) return std::exp(middle);
      (value < goal ? low : high) = middle;
    }
    return std::exp(high);
  }

 private:
  const Numbers& p_;
  const WeightProblem& problem_;
  double largest_ = 0, floor_ = 0;
  Numbers previous_;  // the last solution is where the next begins
};

// Of the first `count` by influence, then by place.
Numbers EqualWeights(const Numbers& p, int64_t count) {
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  Numbers w(p.size());
  for (int64_t i = 0; i < count; ++i) {
    w[order[static_cast<size_t>(i)]] = static_cast<double>(p.size()) / static_cast<double>(count);
  }
  return w;
}

// Directly from the sorted influences, so that nu is p_{count+1} to the bit.
Numbers SupportWeights(const Numbers& p, int64_t count, double lambda) {
  Numbers sorted = p;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  double nu = 0;
  if (count < static_cast<int64_t>(p.size())) {
    nu = sorted[static_cast<size_t>(count)];
  } else {
    ProjectOnSimplex(p, lambda, std::numeric_limits<double>::infinity(), &nu);
  }
  Numbers w(p.size());
  for (size_t i = 0; i < p.size(); ++i) w[i] = std::max(0.0, (p[i] - nu) / lambda);
  return w;
}

}  // namespace

std::vector<double> ProjectOnSimplex(const Numbers& p, double lambda, double maximum, double* nu) {
  TY_CHECK(lambda > 0);
  const bool is_bounded = maximum < static_cast<double>(p.size());
  const double level = is_bounded ? BoundedNu(p, lambda, maximum) : UnboundedNu(p, lambda);
  Numbers w(p.size());
  for (size_t i = 0; i < p.size(); ++i) w[i] = std::clamp((p[i] - level) / lambda, 0.0, maximum);
  if (nu != nullptr) *nu = level;
  return w;
}

double SupportLambda(const Numbers& p, int64_t count) {
  Numbers sorted = p;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  const auto k = static_cast<size_t>(count);
  double next = 0;
  if (k < sorted.size()) {
    next = sorted[k];
  } else {
    const double gap = (sorted.front() - sorted.back()) / std::max(1.0, static_cast<double>(k) - 1);
    next = sorted.back() - (gap > 0 ? gap : 1);
  }
  double sum = 0;
  for (size_t i = 0; i < k; ++i) sum += sorted[i] - next;
  return sum / static_cast<double>(p.size());
}

Spectrum EstimateSpectrum(int64_t size, const SymmetricOperator& q, int steps) {
  const auto n = static_cast<size_t>(size);
  std::vector<Numbers> basis(1, Numbers(n));
  kernels::FillDirection({.seed = 1}, 0, size, basis[0].data());
  const double norm = std::sqrt(Dot(basis[0], basis[0]));
  for (double& value : basis[0]) value /= norm;
  Numbers diagonal, below, next(n);
  double residual = 0, scale = 0;
  while (true) {
    const Numbers& v = basis.back();
    q(v, &next);
    diagonal.push_back(Dot(v, next));
    for (int pass = 0; pass < 2; ++pass) {
      for (const Numbers& other : basis) {
        const double part = Dot(other, next);
        for (size_t i = 0; i < n; ++i) next[i] -= part * other[i];
      }
    }
    residual = std::sqrt(Dot(next, next));
    scale = std::max({scale, std::abs(diagonal.back()), residual});
    if (basis.size() == n || residual <= 1e-14 * scale) {
      residual = 0;  // the space is invariant
      break;
    }
    if (static_cast<int>(basis.size()) == steps) break;
    below.push_back(residual);
    for (double& value : next) value /= residual;
    basis.push_back(next);
  }
  return {TridiagonalEigenvalue(diagonal, below, 0) - residual,
          TridiagonalEigenvalue(diagonal, below, diagonal.size() - 1) + residual};
}

double EffectiveSize(const Numbers& weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  const double squares = Dot(weights, weights);
  return squares > 0 ? sum * sum / squares : 0;
}

double KktResidual(const Numbers& p, const Numbers& w, const WeightProblem& problem, double lambda) {
  Numbers gradient;
  Gradient(p, w, problem, lambda, &gradient);
  Numbers moved = w;
  for (size_t i = 0; i < w.size(); ++i) moved[i] -= gradient[i];
  moved = Project(moved, problem.maximum);
  double worst = 0;
  for (size_t i = 0; i < w.size(); ++i) worst = std::max(worst, std::abs(w[i] - moved[i]));
  return worst;
}

absl::StatusOr<WeightSolution> SolveWeights(const Numbers& p, const WeightProblem& problem) {
  const auto samples = static_cast<int64_t>(p.size());
  if (samples == 0) return absl::InvalidArgumentError("weights: there are no samples");
  for (const double value : p) {
    if (!std::isfinite(value)) return absl::InvalidArgumentError("weights: an influence is not finite");
  }
  const bool counts = problem.rule != spec::LambdaRule::kFixed;
  if (counts && (problem.count < 1 || problem.count > samples)) {
    return absl::InvalidArgumentError(absl::StrCat("count: ", problem.count, " not in [1, ", samples, "]"));
  }
  if (counts && problem.maximum * static_cast<double>(problem.count) < static_cast<double>(samples)) {
    return absl::InvalidArgumentError(absl::StrCat("weights.maximum: ", problem.maximum, " times count ", problem.count,
                                                   " is below the sum of weights, ", samples));
  }
  Solver solver(p, problem);
  WeightSolution solution;
  const bool is_plain = !problem.quadratic && problem.maximum >= static_cast<double>(samples);
  if (problem.rule == spec::LambdaRule::kFixed) {
    solution.lambda = problem.lambda;
  } else if (problem.rule == spec::LambdaRule::kSupport) {
    solution.lambda = SupportLambda(p, problem.count);
    if (solution.lambda <= 0) {  // all of them are equal
      solution.weights = EqualWeights(p, problem.count);
    } else if (is_plain) {
      solution.weights = SupportWeights(p, problem.count, solution.lambda);
    } else {
      TY_ASSIGN_OR_RETURN(solution.lambda, solver.Reach(static_cast<double>(problem.count), [](const Numbers& w) {
        return static_cast<double>(Support(w));
      }));
    }
  } else {
    TY_ASSIGN_OR_RETURN(solution.lambda, solver.Reach(static_cast<double>(problem.count), EffectiveSize));
  }
  solution.lambda = std::max(solution.lambda, solver.floor());
  if (solution.weights.empty()) {
    TY_ASSIGN_OR_RETURN(solution.weights, solver.At(solution.lambda));
  }
  solution.support = Support(solution.weights);
  solution.effective_size = EffectiveSize(solution.weights);
  solution.residual = KktResidual(p, solution.weights, problem, solution.lambda);
  return solution;
}

}  // namespace trainyard::influence
