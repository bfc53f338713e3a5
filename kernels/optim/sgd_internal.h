#pragma once

#include <cmath>

#include "kernels/core/simd.h"
#include "kernels/optim/sgd.h"

namespace trainyard::kernels::internal {

struct SgdConstants {
  float lr, momentum, weight_decay;
  float gradient_share, velocity_share;  // the step is gradient_share * g' + velocity_share * u
};

inline SgdConstants SgdConstantsOf(const SgdArgs& args) {
  return {
      .lr = args.lr,
      .momentum = args.momentum,
      .weight_decay = args.weight_decay,
      .gradient_share = args.nesterov ? 1.0f : 0.0f,
      .velocity_share = args.nesterov ? args.momentum : 1.0f,
  };
}

// Moves the velocity on and returns the new parameter. Fused operations are written out, as in adamw_formula.h.
TY_INLINE float SgdElement(const SgdConstants& k, float gradient, float param, float& velocity) {
  const float g = std::fma(k.weight_decay, param, gradient);
  velocity = std::fma(k.momentum, velocity, g);
  return std::fma(-k.lr, std::fma(k.gradient_share, g, k.velocity_share * velocity), param);
}

// Without momentum.
TY_INLINE float PlainSgdElement(const SgdConstants& k, float gradient, float param) {
  return std::fma(-k.lr, std::fma(k.weight_decay, param, gradient), param);
}

void SgdCpu(const SgdArgs& args, Stream& stream);
void SgdCuda(const SgdArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
