#pragma once

#include "kernels/core/simd.h"
#include "kernels/loss/gradient_penalty.h"

namespace trainyard::kernels::internal {

TY_INLINE float PenaltyFactor(double norm, double scale) {
  return static_cast<float>(norm > 0 ? scale * (norm - 1) / norm : 0.0);
}

void GradientPenaltyCpu(const GradientPenaltyArgs& args, Stream& stream);
void GradientPenaltyCuda(const GradientPenaltyArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
