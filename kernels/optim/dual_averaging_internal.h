#pragma once

#include "kernels/core/simd.h"
#include "kernels/optim/dual_averaging.h"
#include "kernels/optim/dual_averaging_formula.h"

namespace trainyard::kernels::internal {

inline constexpr int64_t kDriftBlock = 1 << 15;  // elements a partial sum

inline int64_t DriftBlocks(int64_t elements) {
  return (elements + kDriftBlock - 1) / kDriftBlock;
}

// One element's way, in f64 of what the f32 step will store, but for its last rounding.
TY_INLINE double DriftOf(float dual, float gradient, double eta_before, double eta) {
  const double y = static_cast<double>(dual);
  return std::fma(eta_before, y, -(eta * (y - static_cast<double>(gradient))));
}

void DualAveragingCpu(const DualAveragingArgs& args, Stream& stream);
void DualDriftCpu(const DualDriftArgs& args, Stream& stream);
void DualAveragingCuda(const DualAveragingArgs& args, Stream& stream);
void DualDriftCuda(const DualDriftArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
