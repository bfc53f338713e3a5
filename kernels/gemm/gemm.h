// General matrix product.
//
//   c = alpha * a_scale * b_scale * op(a) * op(b) + beta * c + bias     (bias added to every row)
//
// op(a): (m, k), stored (k, m) if transpose_a; op(b): (k, n), stored (n, k) if transpose_b; c: (m, n); bias: (n),
// optional. a and b share a dtype, f32 or bf16; c has that dtype or is f32; bias is f32 or bf16. a_scale and b_scale,
// one f32 each, are for factors that an op has made: they are read when the product runs, so nobody waits for them.
// Sums are f32 and rounded once at the end. With beta 0, c is not read. c aliases nothing.
// On the CPU f32 goes to the BLAS library and bf16 operands are widened to f32 panel by panel in `workspace`; work is
// cut at places that depend on the shape alone: the bits are the same for any number of threads.
// On a GPU cuBLASLt does it (cublaslt.h; f32 without TF32), with the same bits in every run on one kind of GPU under
// GemmTuning::kFirst (gemm_tuning.h); what it does not take, and everything on the emulated device, goes to a kernel of
// our own (gemm_tile.h). The workspace is not used there. Compiled for sm_90a, sm_100a and sm_120a; our own kernel has
// run on the emulated device, neither has run on a GPU.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct GemmArgs {
  TensorView a, b, c;
  bool transpose_a = false;
  bool transpose_b = false;
  float alpha = 1;
  float beta = 0;
  TensorView a_scale = {};  // f32 (1), optional, as b_scale
  TensorView b_scale = {};
  TensorView bias = {};       // optional
  TensorView workspace = {};  // any dtype; at least GemmWorkspaceBytes(a.dtype(), m, n, k), aligned to 64
};

void Gemm(const GemmArgs& args, Stream& stream);

// 0 for f32.
int64_t GemmWorkspaceBytes(DType dtype, int64_t m, int64_t n, int64_t k);

}  // namespace trainyard::kernels
