// The arithmetic of AdamW for one element (adamw.h), in float for the kernels and in double for tests. Fused operations
// are written out and none is left for the compiler to make or not: so a GPU and every CPU give the same bits.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {

template <typename T>
struct AdamWConstants {
  T lr, beta1, beta2, eps, weight_decay;
  T inverse_correction1, inverse_correction2;  // 1 / (1 - beta^step)
};

template <typename T>
T InverseCorrection(T beta, int64_t step) {
  return static_cast<T>(1.0 / (1.0 - std::pow(static_cast<double>(beta), static_cast<double>(step))));
}

// Moves the moments on and returns the step that a rate of 1 makes; `divisor` becomes sqrt(v / (1 - beta2^step)) + eps.
template <typename T>
TY_INLINE T AdamWDirection(const AdamWConstants<T>& k, T gradient, T& m, T& v, T& divisor) {
  m = std::fma(k.beta1, m, (T{1} - k.beta1) * gradient);
  v = std::fma(k.beta2, v, (T{1} - k.beta2) * gradient * gradient);
  divisor = std::sqrt(v * k.inverse_correction2) + k.eps;
  return (m * k.inverse_correction1) / divisor;
}

// The parameter after a step in `direction`, with decoupled weight decay.
template <typename T>
TY_INLINE T DecayedStep(T lr, T weight_decay, T direction, T param) {
  return std::fma(-lr, std::fma(weight_decay, param, direction), param);
}

// Moves the moments on and returns the new parameter.
template <typename T>
TY_INLINE T AdamWElement(const AdamWConstants<T>& k, T gradient, T param, T& m, T& v, T& divisor) {
  const T direction = AdamWDirection(k, gradient, m, v, divisor);
  return DecayedStep(k.lr, k.weight_decay, direction, param);
}

}  // namespace trainyard::kernels::internal
