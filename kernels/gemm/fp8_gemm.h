// Products of 8-bit floats, each operand with one factor on the device (kernels/quant/fp8_quantize.h):
//
//   c = alpha a_inverse b_inverse op(a) op(b) + beta c + bias     (bias added to every row)
//
// op(a): (m, k), stored (k, m) if transpose_a; op(b): (k, n), stored (n, k) if transpose_b; f8_e4m3 or f8_e5m2 each.
// a_inverse, b_inverse: f32 (1), read when the product runs, so nobody waits for them. c: bf16 or f32 (m, n); bias:
// bf16 or f32 (n), optional. Sums are f32, rounded once at the end. With beta 0, c is not read. c aliases nothing.
//
// CPU: the codes widened to `widened`, which holds them exactly, and Gemm: the bits of that emulation. CUDA: cuBLASLt's
// FP8 kernels from compute capability 8.9 on, where k and n are multiples of 16, at most one operand is E5M2, and a
// bias is bf16. They take both operands along k (a as it is, b transposed); others are put so in the workspace first.
// All else goes to the kernel of gemm_tile.h, which widens as it reads. Hopper's tensor cores keep fewer than f32's
// bits of their sums between steps (arXiv:2412.19437, 3.3.2); the library's accurate accumulation is on. Has run on the
// CPU and on the emulated device; the cuBLASLt path is compiled, and has not run.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct Fp8GemmArgs {
  TensorView a, b;
  TensorView a_inverse, b_inverse;
  TensorView c;
  bool transpose_a = false;
  bool transpose_b = false;
  float alpha = 1;
  float beta = 0;
  TensorView bias = {};          // optional
  DType widened = DType::kBF16;  // of the CPU's operands: bf16 or f32; c is f32 or that
  TensorView workspace = {};     // any dtype, aligned to 64; see Fp8GemmWorkspaceBytes
};
void Fp8Gemm(const Fp8GemmArgs& args, Stream& stream);

// On the CPU. A CUDA stream needs a byte for each element of an operand that does not lie along k, each operand's
// rounded up to 64, and nothing of the others.
int64_t Fp8GemmWorkspaceBytes(DType widened, int64_t m, int64_t n, int64_t k);

}  // namespace trainyard::kernels
