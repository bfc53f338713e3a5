// The arithmetic of ECO for one element (eco.h), in float for the kernels and in double for the tests of its claims.
// Fused operations are written out, as in adamw_formula.h: the same bits on every device.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/simd.h"
#include "kernels/optim/adamw_formula.h"

namespace trainyard::kernels {

enum class EcoForm { kAdamW, kSgdm, kSgdmExact };

namespace internal {

template <typename T>
struct EcoSettings {
  EcoForm form = EcoForm::kAdamW;
  T lr, beta1, beta2, eps, weight_decay;
  int64_t step = 1;
  bool inject = true;
  bool decay_correction = false;
  T min_learning_rate;
};

template <typename T>
struct EcoConstants {
  AdamWConstants<T> adamw;
  T injection;  // of the step's own error, negative: times the divisor (AdamW); 0: none
  T payback;    // of the error of the step before (exact form)
};

template <typename T>
EcoConstants<T> MakeEcoConstants(const EcoSettings<T>& s) {
  EcoConstants<T> k = {};
  const bool has_bias = s.form == EcoForm::kAdamW;
  const T inverse_correction1 = has_bias ? InverseCorrection(s.beta1, s.step) : T{1};
  k.adamw = {.lr = s.lr,
             .beta1 = s.beta1,
             .beta2 = s.beta2,
             .eps = s.eps,
             .weight_decay = s.weight_decay,
             .inverse_correction1 = inverse_correction1,
             .inverse_correction2 = has_bias ? InverseCorrection(s.beta2, s.step) : T{1}};
  if (!s.inject || !(s.lr >= s.min_learning_rate)) return k;
  const T decay = s.decay_correction ? T{1} - s.lr * s.weight_decay : T{1};
  const T pending = decay / (s.lr * inverse_correction1);
  k.injection = s.form == EcoForm::kSgdmExact ? -pending / s.beta1 : pending * (T{1} - T{1} / s.beta1);
  k.payback = s.form == EcoForm::kSgdmExact ? pending : T{0};
  return k;
}

// Moves the moments on and returns w~, the weight before it is rounded: AdamWElement, or for SGDM this.
template <typename T>
TY_INLINE T EcoSgdmElement(const EcoConstants<T>& k, T gradient, T weight, T& m) {
  m = std::fma(k.adamw.beta1, m, (T{1} - k.adamw.beta1) * gradient);
  return DecayedStep(k.adamw.lr, k.adamw.weight_decay, m, weight);
}

// The momentum that carries the error e = w~ - q(w~) on.
template <typename T>
TY_INLINE T EcoInjectAdamW(const EcoConstants<T>& k, T m, T divisor, T error) {
  return std::fma(k.injection * divisor, error, m);
}
template <typename T>
TY_INLINE T EcoInjectSgdm(const EcoConstants<T>& k, T m, T last_error, T error) {
  return m + std::fma(k.injection, error, k.payback * last_error);
}

}  // namespace internal
}  // namespace trainyard::kernels
