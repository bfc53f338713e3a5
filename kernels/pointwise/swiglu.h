// Gated linear unit with SiLU (Shazeer, arXiv:2002.05202), as in Llama's feed-forward block.
//
//   y[r,d] = up[r,d] * gate[r,d] * sigmoid(gate[r,d])
//
// gate_up: (rows, 2 D), a row is D gates, then D ups: the output of one linear layer with both weights stacked.
// y, dy: (rows, D). All f32 or bf16, one dtype a call; arithmetic is f32.
//
// amax, of both directions: optional, f32 (1), overwritten with the largest magnitude of y (of dgate_up), the bits of
// AbsMax (kernels/quant/abs_max.h) without its pass.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct SwigluForwardArgs {
  TensorView gate_up, y;
  TensorView amax = {};  // optional
};
void SwigluForward(const SwigluForwardArgs& args, Stream& stream);

// dup = dy * gate * s, dgate = dy * up * s * (1 + gate * (1 - s)), s = sigmoid(gate). Overwrites dgate_up, which may
// alias gate_up.
struct SwigluBackwardArgs {
  TensorView gate_up, dy, dgate_up;
  TensorView amax = {};  // optional
};
void SwigluBackward(const SwigluBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels
