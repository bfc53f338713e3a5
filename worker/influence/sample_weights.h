// Weights of samples from their influences (influence-distillation.md 2.3):
//
//   min_w  -p^T w + (eta/2) w^T Q w + (lambda/2) |w|^2    subject to  0 <= w <= maximum,  sum(w) = N
//
// N = p.size(). Without Q the solution is w_i = clip((p_i - nu) / lambda, 0, maximum), nu such that the sum is N: the
// projection of p / lambda. Its support grows and its entries become more equal as lambda grows. Everything here is in
// f64 on one thread, in a fixed order.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/spec/select_data_options.h"

namespace trainyard::influence {

// The projection, and nu if asked for. lambda > 0; maximum >= 1, or infinite.
std::vector<double> ProjectOnSimplex(const std::vector<double>& p, double lambda, double maximum, double* nu = nullptr);

// The lambda that leaves exactly `count` samples, 1 <= count <= N, a weight if no influences are equal:
//   lambda = (1/N) sum_{i <= count} (p_i - p_{count+1}), sorted; then nu = p_{count+1}
// For count = N, p_{N+1} is put one mean gap below the last.
double SupportLambda(const std::vector<double>& p, int64_t count);

// out = Q in.
using SymmetricOperator = std::function<void(const std::vector<double>& in, std::vector<double>* out)>;

// The smallest and the largest eigenvalue by Lanczos with full reorthogonalisation, each moved outwards by its
// residual; exact after `size` steps.
struct Spectrum {
  double smallest = 0, largest = 0;
};
Spectrum EstimateSpectrum(int64_t size, const SymmetricOperator& q, int steps = 40);

struct WeightProblem {
  spec::LambdaRule rule = spec::LambdaRule::kSupport;
  int64_t count = 1;                 // samples that get a weight, or the effective sample size; not with kFixed
  double lambda = 0;                 // kFixed
  double maximum = 1e300;            // of a weight
  double learning_rate = 0;          // eta
  SymmetricOperator quadratic = {};  // Q; none: first order
};
struct WeightSolution {
  std::vector<double> weights;
  double lambda = 0;  // what was used: raised above -eta lambda_min(Q) where Q asks for it
  int64_t support = 0;
  double effective_size = 0;  // (sum w)^2 / sum w^2
  double residual = 0;        // |w - Proj(w - gradient)|_inf
};

// InvalidArgument if the maximum leaves no solution (maximum * count < N with kSupport) or an influence is not finite;
// FailedPrecondition if the iterations do not converge. Influences that are equal where the support would be cut get
// weight 0 together; if all `count` largest are equal, the first of them get equal weights.
absl::StatusOr<WeightSolution> SolveWeights(const std::vector<double>& p, const WeightProblem& problem);

double EffectiveSize(const std::vector<double>& weights);

// |w - Proj(w - gradient)|_inf of the whole problem, 0 at the solution.
double KktResidual(const std::vector<double>& p, const std::vector<double>& w, const WeightProblem& problem,
                   double lambda);

}  // namespace trainyard::influence
