// A step of the weights whose direction is a product of thin factors, with decoupled weight decay (dct-lowrank.md 2.5,
// 2.6).
//
//   w = w - lr * (scale X Y + weight_decay w)
//
// weight: f32 or bf16 (rows, cols); with `master` (f32) the step is made there and weight receives it rounded to
// nearest. Same bits for any number of threads; with X Y as the direction, the bits that AdamW would give it.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/optim/low_rank_factors.h"

namespace trainyard::kernels {

struct LowRankStepArgs {
  LowRankFactors direction;
  TensorView weight;
  TensorView master = {};  // optional
  TensorView product;      // f32 (rows, cols): scratch, overwritten with scale X Y
  float lr = 0;
  float scale = 1;
  float weight_decay = 0;
};
void LowRankStep(const LowRankStepArgs& args, Stream& stream);

}  // namespace trainyard::kernels
