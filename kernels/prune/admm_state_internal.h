#pragma once

#include <cmath>

#include "kernels/core/simd.h"
#include "kernels/prune/admm_state.h"

namespace trainyard::kernels::internal {

inline constexpr int64_t kResidualBlock = 64 * kPruneBlock;  // elements of a partial sum
inline int64_t ResidualBlocks(int64_t elements) {
  return (elements + kResidualBlock - 1) / kResidualBlock;
}

struct ResidualSums {
  double gap = 0, x = 0;
};

// The fused operation is written out: the same bits on every device.
TY_INLINE float PointWithDual(float x, float dual_factor, float dual) {
  return std::fma(dual_factor, dual, x);
}

void AdmmPointCpu(const AdmmPointArgs& args, Stream& stream);
void AdmmProjectCpu(const AdmmProjectArgs& args, Stream& stream);
void AdmmResidualCpu(const AdmmResidualArgs& args, Stream& stream);
void AdmmPointCuda(const AdmmPointArgs& args, Stream& stream);
void AdmmProjectCuda(const AdmmProjectArgs& args, Stream& stream);
void AdmmResidualCuda(const AdmmResidualArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
