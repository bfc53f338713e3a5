// AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101), one tensor a call.
//
//   g' = g * grad_scale * gradient_factor
//   m = beta1 m + (1 - beta1) g'           v = beta2 v + (1 - beta2) g'^2
//   p = p - lr * ( (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps) + weight_decay * p )
//
// param, grad, m, v: the same number of elements, each f32 or bf16 on its own. Arithmetic is f32; the update uses m and
// v before they are rounded to their storage. With `master` (f32) the update is made there and param receives it
// rounded. Element-wise: the same bits on any thread count, and a shard gives the bits of the whole.
//
// m may also be E4M3 (llm.q's first moment): m = code * m_scales[element / 128], the scale being max |m| / 448 over its
// 128 elements, so that nothing clips.
//
// What is stored in bf16 or E4M3 is rounded to nearest or stochastically: up with the probability that keeps the mean
// exact, so updates below half a unit in the last place are not lost on average. The words come from `random` with a
// purpose of its own for the parameter and for each moment. A param that has a master is always rounded to nearest.
#pragma once

#include <cstdint>

#include "kernels/core/philox.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/quant/cast.h"

namespace trainyard::kernels {

inline constexpr int64_t kMomentGroup = 128;  // elements of a scale of an E4M3 moment

struct AdamWArgs {
  TensorView param;        // read (unless there is a master) and overwritten
  TensorView master = {};  // optional, f32, read and overwritten
  TensorView grad;
  TensorView m, v;           // updated; zero before step 1
  TensorView m_scales = {};  // f32 (ceil(size / 128)), updated with an E4M3 m; else absent
  float lr = 0.0f;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float eps = 1e-8f;
  float weight_decay = 0.0f;
  int64_t step = 1;  // 1-based
  float grad_scale = 1.0f;
  TensorView gradient_factor =
      {};  // optional, f32 (1): a factor known only on the device, e.g. GlobalNormArgs::clip_factor
  Rounding rounding = Rounding::kNearestEven;  // of what is stored in bf16 or E4M3
  PhiloxKey random = {};                       // stochastic: seed, step, tensor; the op sets the purpose
  int64_t first_element = 0;  // where the views begin in the tensor: a shard rounds as inside the whole. With an
                              // E4M3 m a multiple of 128
};

void AdamW(const AdamWArgs& args, Stream& stream);

}  // namespace trainyard::kernels
