// What one training step does to the loss on a target set, as a function of the samples' weights
// (influence-distillation.md 2.1 and 2.2).
//
// Gradient descent: theta' = theta - (eta/N) G^T w. AdamW with its second moment frozen, t0 steps after its start:
//
//   theta' = theta - eta ( a (*) (1/N) G^T w + b ),   D = 1 / (sqrt(v / (1 - beta2^(t0+1))) + eps)
//   a = (1 - beta1) / (1 - beta1^(t0+1)) D
//   b = weight_decay theta + beta1 / (1 - beta1^(t0+1)) m D
//
// and, G read as G diag(a), g and H the gradient and Hessian of the target loss:
//
//   L(theta') - L(theta) ~ (eta/N) (-p^T w + (eta/2) w^T Q w) + constant
//   p = G (g - eta H b),  Q = (1/N) G H G^T,  constant = -eta g^T b + (eta^2/2) b^T H b
#pragma once

#include <cmath>
#include <cstdint>

namespace trainyard::influence {

// AdamW's numbers at the moment where gradients are taken: the next update would be number steps + 1. With a frozen
// second moment, `v` is what the step divides by: the same formula as kernels/optim/adamw_formula.h before it adds the
// new gradient to v.
struct FrozenAdam {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0;
  int64_t steps = 0;

  // D of one element.
  double Divisor(double v) const {
    const double correction = 1 - std::pow(beta2, static_cast<double>(steps + 1));
    return std::sqrt(v / correction) + epsilon;
  }
  double first_correction() const { return 1 - std::pow(beta1, static_cast<double>(steps + 1)); }
  // a of one element.
  double GradientScale(double v) const { return (1 - beta1) / first_correction() / Divisor(v); }
  // b of one element.
  double FixedPart(double theta, double m, double v) const {
    return weight_decay * theta + beta1 / first_correction() * m / Divisor(v);
  }
  // The direction that LESS takes for a sample's gradient (arXiv:2402.04333 and its code, where eps is in the root).
  double LessDirection(double g, double m, double v) const {
    return (beta1 * m + (1 - beta1) * g) / std::sqrt(beta2 * v + (1 - beta2) * g * g + epsilon);
  }
};

// Predicted change of the target loss without the constant. p: (samples); q: (samples, samples); w: (samples).
inline double PredictedChange(const double* p, const double* q, const double* w, int64_t samples,
                              double learning_rate) {
  double linear = 0, quadratic = 0;
  for (int64_t i = 0; i < samples; ++i) {
    linear += p[i] * w[i];
    for (int64_t j = 0; j < samples; ++j) quadratic += w[i] * q[i * samples + j] * w[j];
  }
  return learning_rate / static_cast<double>(samples) * (-linear + learning_rate / 2 * quadratic);
}

}  // namespace trainyard::influence
