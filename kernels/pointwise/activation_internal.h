#pragma once

#include "kernels/core/math.h"
#include "kernels/core/simd.h"
#include "kernels/pointwise/activation.h"

namespace trainyard::kernels::internal {

// Value of an input, and slope at an output.
struct LeakyRelu {
  float slope;
  TY_INLINE float Value(float x) const { return x > 0.0f ? x : slope * x; }
  TY_INLINE float Slope(float y) const { return y > 0.0f ? 1.0f : slope; }
};
struct Tanh {
  TY_INLINE float Value(float x) const { return FastTanh(x); }
  TY_INLINE float Slope(float y) const { return 1.0f - y * y; }
};

void LeakyReluForwardCpu(const LeakyReluForwardArgs& args, Stream& stream);
void LeakyReluBackwardCpu(const LeakyReluBackwardArgs& args, Stream& stream);
void TanhForwardCpu(const TanhForwardArgs& args, Stream& stream);
void TanhBackwardCpu(const TanhBackwardArgs& args, Stream& stream);
void LeakyReluForwardCuda(const LeakyReluForwardArgs& args, Stream& stream);
void LeakyReluBackwardCuda(const LeakyReluBackwardArgs& args, Stream& stream);
void TanhForwardCuda(const TanhForwardArgs& args, Stream& stream);
void TanhBackwardCuda(const TanhBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
