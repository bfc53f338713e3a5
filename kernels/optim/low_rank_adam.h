// Adam inside a subspace: coordinates in, direction out (dct-lowrank.md 2.5). The step itself is made by LowRankStep.
//
//   a' = a * gradient_factor
//   m = beta1 m + (1 - beta1) a'           v = beta2 v + (1 - beta2) a'^2
//   a = (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)
//
// The published form m / (sqrt(v) + eps sqrt(1 - beta2^t)) with the corrections in the rate is the same number. a, m,
// v: f32, the same number of elements. The arithmetic is AdamW's, operation by operation, so that a full-rank subspace
// with the identity as its basis gives AdamW's bits.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct LowRankAdamArgs {
  TensorView a;     // overwritten with the direction
  TensorView m, v;  // updated; zero before step 1
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float eps = 1e-8f;
  int64_t step = 1;                 // 1-based
  TensorView gradient_factor = {};  // optional, f32 (1)
};
void LowRankAdam(const LowRankAdamArgs& args, Stream& stream);

}  // namespace trainyard::kernels
