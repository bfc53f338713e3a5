// Some columns or rows of a matrix, in the order of a list.
//
//   axis 1: y[i,q] = x[i, indices[q]]     axis 0: y[q,j] = x[indices[q], j]     zeros where indices[q] is -1
//
// x: f32 or bf16 (rows, cols); indices: i32, each -1 or a line of x; y: x's dtype and shape but for indices.size()
// lines along `axis`; overwritten, aliases nothing.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct TakeLinesArgs {
  TensorView x, indices, y;
  int axis = 1;
};
void TakeLines(const TakeLinesArgs& args, Stream& stream);

}  // namespace trainyard::kernels
