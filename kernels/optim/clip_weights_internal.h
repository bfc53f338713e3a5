#pragma once

#include "kernels/core/simd.h"
#include "kernels/optim/clip_weights.h"

namespace trainyard::kernels::internal {

TY_INLINE float ClippedWeight(float weight, float limit) {
  return weight > limit ? limit : (weight < -limit ? -limit : weight);
}

void ClipWeightsCpu(const ClipWeightsArgs& args, Stream& stream);
void ClipWeightsCuda(const ClipWeightsArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
