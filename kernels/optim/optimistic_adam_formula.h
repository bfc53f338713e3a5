// One element of optimistic_adam.h, for any floating-point type: the op runs it in f32, the exact checks of
// methods/qoda.md, section 5, in f64. Fused operations are written out: the same bits on every device.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/simd.h"

namespace trainyard::kernels {

template <typename T>
struct AdamConstants {
  T beta1, beta2, eps;
  T inverse_correction1;  // 1 / (1 - beta1^step)
  T root_correction2;     // sqrt(1 - beta2^step)

  static AdamConstants Of(double beta1, double beta2, double eps, int64_t step) {
    const auto power = static_cast<double>(step);
    return {static_cast<T>(beta1), static_cast<T>(beta2), static_cast<T>(eps),
            static_cast<T>(1.0 / (1.0 - std::pow(beta1, power))),
            static_cast<T>(std::sqrt(1.0 - std::pow(beta2, power)))};
  }
};

// The direction, with both moments updated.
template <typename T>
TY_INLINE T AdamDirection(const AdamConstants<T>& k, T gradient, T& m, T& v) {
  m = std::fma(k.beta1, m, (T{1} - k.beta1) * gradient);
  v = std::fma(k.beta2, v, (T{1} - k.beta2) * gradient * gradient);
  return (m * k.inverse_correction1) * k.root_correction2 / (std::sqrt(v) + k.eps);
}

template <typename T>
TY_INLINE T PlainStep(T base, T lr, T direction) {
  return std::fma(-lr, direction, base);
}

// The optimistic step from `base`; `previous` becomes this direction.
template <typename T>
TY_INLINE T OptimisticStep(T base, T lr, T direction, T& previous) {
  const T weight = PlainStep(base, lr, std::fma(T{2}, direction, -previous));
  previous = direction;
  return weight;
}

}  // namespace trainyard::kernels
