// Activation functions that are computed from their own output in the backward, so that they may work in place:
//
//   LeakyRelu: y = x > 0 ? x : slope x      dx = y > 0 ? dy : slope dy        (slope 0: ReLU; the slope at 0 is
//   `slope`) Tanh:      y = tanh(x)                  dx = (1 - y^2) dy
//
// Tensors of a call have equal size and one dtype, f32 or bf16; arithmetic is f32, rounded once. Any of them may be the
// same memory. With `accumulate`, dx is added to what is there (then dx must not be dy).
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct LeakyReluForwardArgs {
  TensorView x, y;
  float slope = 0;  // >= 0, so that the sign of y is that of x
};
void LeakyReluForward(const LeakyReluForwardArgs& args, Stream& stream);

struct LeakyReluBackwardArgs {
  TensorView y, dy, dx;
  float slope = 0;
  bool accumulate = false;
};
void LeakyReluBackward(const LeakyReluBackwardArgs& args, Stream& stream);

struct TanhForwardArgs {
  TensorView x, y;
};
void TanhForward(const TanhForwardArgs& args, Stream& stream);

struct TanhBackwardArgs {
  TensorView y, dy, dx;
  bool accumulate = false;
};
void TanhBackward(const TanhBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels
