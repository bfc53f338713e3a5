// Adam's direction for games (Gidel et al., arXiv:1802.10551; methods/qoda.md, 2.6), one tensor a call. Serves three
// optimizers: optimistic Adam, plain Adam, and the two halves of extra-Adam.
//
//   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
//   direction = (m / (1 - beta1^step)) / ((sqrt(v) + eps) / sqrt(1 - beta2^step))
//   weight = base - lr * direction                              without `previous`
//   weight = base - 2 lr * direction + lr * previous;  previous = direction
//
// eps is added before the second correction, unlike in adamw.h. All tensors are f32 of one size; arithmetic is f32,
// element-wise: the same bits on any thread count.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct OptimisticAdamArgs {
  TensorView weight;     // overwritten
  TensorView base = {};  // where the step starts; absent: the weight itself
  TensorView gradient;
  TensorView m, v;           // updated; zero before step 1
  TensorView previous = {};  // optional, updated; zero before step 1, which is then a double step
  float lr = 0.0f;
  float beta1 = 0.5f;
  float beta2 = 0.9f;
  float eps = 1e-8f;
  int64_t step = 1;  // 1-based number of this update of the moments
};

void OptimisticAdam(const OptimisticAdamArgs& args, Stream& stream);

}  // namespace trainyard::kernels
