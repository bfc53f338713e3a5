// Keeps every weight in [-limit, limit], as the first Wasserstein GANs bound their critic (Arjovsky et al.,
// arXiv:1701.07875). f32; NaN stays NaN. Element-wise: the same bits on any thread count.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct ClipWeightsArgs {
  TensorView weight;   // updated
  float limit = 0.0f;  // >= 0
};

void ClipWeights(const ClipWeightsArgs& args, Stream& stream);

}  // namespace trainyard::kernels
