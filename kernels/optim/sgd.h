// Stochastic gradient descent with momentum (Sutskever et al., ICML 2013), in the form of PyTorch's SGD without
// dampening; one tensor a call.
//
//   g' = g * grad_scale * gradient_factor + weight_decay * p
//   u = momentum u + g';   p = p - lr * (nesterov ? g' + momentum u : u)
//
// param, grad, velocity: the same number of elements, each f32 or bf16 on its own; arithmetic is f32, master and
// rounding as in adamw.h. Without momentum no velocity is needed.
#pragma once

#include <cstdint>

#include "kernels/core/philox.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/quant/cast.h"

namespace trainyard::kernels {

struct SgdArgs {
  TensorView param;        // read (unless there is a master) and overwritten
  TensorView master = {};  // optional, f32, read and overwritten
  TensorView grad;
  TensorView velocity = {};  // updated; zero before the first step; may be absent if momentum == 0
  float lr = 0.0f;
  float momentum = 0.0f;
  bool nesterov = false;
  float weight_decay = 0.0f;  // added to the gradient, not decoupled
  float grad_scale = 1.0f;
  TensorView gradient_factor = {};             // optional, f32 (1)
  Rounding rounding = Rounding::kNearestEven;  // of what is stored in bf16
  PhiloxKey random = {};                       // stochastic: seed, step, tensor; the op sets the purpose
  int64_t first_element = 0;  // where the views begin in the tensor: a shard rounds as inside the whole
};

void Sgd(const SgdArgs& args, Stream& stream);

}  // namespace trainyard::kernels
