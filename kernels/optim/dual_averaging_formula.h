// One element of dual_averaging.h, for any floating-point type: the op runs it in f32, the exact checks of
// methods/qoda.md, section 5, in f64. Fused operations are written out: the same bits on every device.
#pragma once

#include <cmath>

#include "kernels/core/simd.h"

namespace trainyard::kernels {

template <typename T>
TY_INLINE void DualAveragingElement(T anchor, T gradient, T eta, T gamma, T& dual, T& weight) {
  dual -= gradient;
  weight = std::fma(-gamma, gradient, std::fma(eta, dual, anchor));
}

}  // namespace trainyard::kernels
