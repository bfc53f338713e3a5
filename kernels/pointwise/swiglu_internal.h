#pragma once

#include "kernels/core/simd.h"
#include "kernels/pointwise/swiglu.h"

namespace trainyard::kernels::internal {

// s: sigmoid(gate).
TY_INLINE float SwigluValue(float gate, float up, float s) {
  return up * gate * s;
}
TY_INLINE float SwigluGateGradient(float gate, float up, float dy, float s) {
  return dy * up * (s + gate * s * (1.0f - s));
}
TY_INLINE float SwigluUpGradient(float gate, float dy, float s) {
  return dy * (gate * s);
}

void SwigluForwardCpu(const SwigluForwardArgs& args, Stream& stream);
void SwigluBackwardCpu(const SwigluBackwardArgs& args, Stream& stream);
void SwigluForwardCuda(const SwigluForwardArgs& args, Stream& stream);
void SwigluBackwardCuda(const SwigluBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
