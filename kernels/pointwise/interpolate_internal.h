#pragma once

#include <cmath>

#include "kernels/core/simd.h"
#include "kernels/pointwise/interpolate.h"

namespace trainyard::kernels::internal {

// The fused operation is written out: the same bits on every device.
TY_INLINE float Between(float a, float x, float y) {
  return std::fma(a, x, (1.0f - a) * y);
}

void InterpolateCpu(const InterpolateArgs& args, Stream& stream);
void InterpolateCuda(const InterpolateArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
