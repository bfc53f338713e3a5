#pragma once

#include <cmath>

#include "kernels/core/simd.h"
#include "kernels/optim/moving_average.h"

namespace trainyard::kernels::internal {

// The fused operation is written out: the same bits on every device.
TY_INLINE float MovedAverage(float average, float x, float rate) {
  return std::fma(rate, x - average, average);
}

void MovingAverageCpu(const MovingAverageArgs& args, Stream& stream);
void MovingAverageCuda(const MovingAverageArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
