#pragma once

#include <cmath>

#include "kernels/core/simd.h"
#include "kernels/prune/admm_prox.h"

namespace trainyard::kernels::internal {

// The fused operation is written out: the same bits on every device.
TY_INLINE float PulledGradient(float gradient, float factor, float lambda, float gap) {
  return std::fma(lambda, gap, gradient * factor);
}

void AdmmProxCpu(const AdmmProxArgs& args, Stream& stream);
void AdmmProxCuda(const AdmmProxArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
