// Points between the rows of two matrices, as a gradient penalty looks at (WGAN-GP, arXiv:1704.00028, algorithm 1).
//
//   out[r,c] = a[r] x[r,c] + (1 - a[r]) y[r,c]
//
// x, y, out: (rows, cols) f32; a: (rows) f32. The first product is fused with the sum. Element-wise: the same bits on
// any number of threads and any device. out may alias x or y.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct InterpolateArgs {
  TensorView a, x, y, out;
};

// Overwrites out.
void Interpolate(const InterpolateArgs& args, Stream& stream);

}  // namespace trainyard::kernels
