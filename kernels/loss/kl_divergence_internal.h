#pragma once

#include "kernels/core/math.h"
#include "kernels/core/simd.h"
#include "kernels/loss/kl_divergence.h"

namespace trainyard::kernels::internal {

// Below its exponential is 0 in f32.
inline constexpr float kLeastExponent = -104.0f;

// exp(p - p_max) (p - q - shift); the mean over it needs one division by the sum of p. What p does not have counts for
// nothing, whatever q says.
TY_INLINE float KlTerm(float p, float q, float p_max, float shift) {
  const float distance = p - p_max;
  const float term = FastExp(distance) * ((p - q) - shift);
  return distance < kLeastExponent ? 0.0f : term;
}

void KlDivergenceCpu(const KlDivergenceArgs& args, Stream& stream);
void KlDivergenceCuda(const KlDivergenceArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
