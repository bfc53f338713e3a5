// Root-mean-square normalisation over the last dimension (Zhang and Sennrich, arXiv:1910.07467), with the addition to
// the residual stream that comes before it in a transformer.
//
//   sum[r,c] = x[r,c] + residual[r,c]                     (without residual: sum = x, nothing stored)
//   inv_rms[r] = 1 / sqrt(mean_c(sum[r,:]^2) + eps)
//   y[r,c] = sum[r,c] * inv_rms[r] * w[c]
//
// x, residual, sum, y, dy, dresidual, dx: (rows, cols), f32 or bf16, one dtype a call; w: (cols), that dtype;
// inv_rms: (rows) f32. The norm is of the stored (rounded) sum, so the backward sees what the forward saw.
// Sums are f32 in a fixed order: the same bits for any number of threads and any vector width.
//
// amax, of both directions: optional, f32 (1), overwritten with the largest magnitude of y (of dx), the bits of AbsMax
// (kernels/quant/abs_max.h) without its pass.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct RmsNormForwardArgs {
  TensorView x;
  TensorView residual = {};  // optional; needs sum
  TensorView sum = {};       // written if residual is given; may alias x or residual
  TensorView w;
  TensorView y;        // may alias x if residual is not given
  TensorView inv_rms;  // kept for the backward
  float eps = 1e-5f;
  TensorView amax = {};  // optional
};
void RmsNormForward(const RmsNormForwardArgs& args, Stream& stream);

// With g[r,c] = dy[r,c] w[c] and n[r,c] = x[r,c] inv_rms[r]:
//   dx[r,c]  = inv_rms[r] (g[r,c] - n[r,c] mean_c(g[r,:] n[r,:])) + dresidual[r,c]
//   dw[c]   += sum_r dy[r,c] n[r,c]                       ACCUMULATES; f32 or the storage dtype
struct RmsNormBackwardArgs {
  TensorView x;  // what was normalised: the forward's sum, or its x without residual
  TensorView w;
  TensorView inv_rms;
  TensorView dy;
  TensorView dresidual = {};  // optional: the gradient that reaches sum by the residual stream
  TensorView dx;              // overwritten; may alias dresidual or dy
  TensorView dw;
  TensorView workspace;  // RmsNormBackwardWorkspaceBytes(rows, cols), any dtype, aligned to 64
  TensorView amax = {};  // optional
};
void RmsNormBackward(const RmsNormBackwardArgs& args, Stream& stream);

int64_t RmsNormBackwardWorkspaceBytes(int64_t rows, int64_t cols);

}  // namespace trainyard::kernels
