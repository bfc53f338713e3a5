// A linear layer with weights as Hugging Face stores them, w: (out, in).
//
//   y  = x w^T + bias        x: (rows, in), y: (rows, out), bias: (out), optional
//   dx = dy w                (+ dx if accumulate)
//   dw = dy^T x              (+ dw if accumulate)
//   db = sum over rows of dy (+ db if accumulate), optional
//
// x, w, y, dy share a dtype, f32 or bf16; dx has it too; bias, dw and db have it or are f32. Accumulation is in f32 and
// rounded once. Outputs alias nothing. Same bits for any number of threads.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct LinearForwardArgs {
  TensorView x, w;
  TensorView bias = {};  // optional
  TensorView y;
  TensorView workspace = {};  // LinearWorkspaceBytes; nothing for f32
};
void LinearForward(const LinearForwardArgs& args, Stream& stream);

struct LinearBackwardInputArgs {
  TensorView dy, w, dx;
  bool accumulate = false;
  TensorView workspace = {};
};
void LinearBackwardInput(const LinearBackwardInputArgs& args, Stream& stream);

struct LinearBackwardWeightArgs {
  TensorView dy, x, dw;
  TensorView db = {};  // optional
  bool accumulate = false;
  TensorView workspace = {};
};
void LinearBackwardWeight(const LinearBackwardWeightArgs& args, Stream& stream);

// Enough for all three. 0 for f32.
int64_t LinearWorkspaceBytes(DType dtype, int64_t rows, int64_t in, int64_t out);

}  // namespace trainyard::kernels
