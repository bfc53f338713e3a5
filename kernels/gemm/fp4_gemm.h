// Products of 4-bit floats with a scale for each group of consecutive elements (kernels/quant/{mxfp4,nvfp4}.h):
//
//   c[i,j] = alpha a_s b_s sum_k A[i,k] B[j,k] + beta c[i,j] + bias[j]
//   A[i,k] = E2M1(a.packed[i,k]) a.scales[i, k / group], B likewise; a_s, b_s: one f32 for a whole tensor, or 1
//
// packed: u8 (rows, k / 2), the code of an even column in the low half; scales: f8_e4m3 (rows, k / 16) of NVFP4 or u8
// (rows, k / 32), E8M0, of MXFP4, the same for both operands; k a multiple of the group. a has m rows, b has n.
// tensor_scale: f32 (1), read when the product runs; absent for MXFP4, whose ranges belong into alpha. c: bf16 or f32
// (m, n); bias: bf16 or f32 (n), optional. Sums are f32, rounded once at the end. With beta 0, c is not read. c aliases
// nothing.
//
// CPU: the values A and B in bf16, which holds them exactly where they are normal numbers, and Gemm. CUDA: NVFP4 on
// compute capability 10 and higher goes to cuBLASLt's block-scaled kernels, where k is a multiple of 32 and n of 8 and
// a bias has c's dtype; it wants scales in tiles of its own, which a kernel puts into the workspace. All else, and
// MXFP4, for which the library has no kernels, goes to the kernel of gemm_tile.h, which computes A and B as it reads.
// Has run on the CPU and on the emulated device; the cuBLASLt path is compiled, and has not run.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct Fp4Matrix {
  TensorView packed;
  TensorView scales;
  TensorView tensor_scale = {};  // optional
};

struct Fp4GemmArgs {
  Fp4Matrix a, b;
  TensorView c;
  float alpha = 1;
  float beta = 0;
  TensorView bias = {};  // optional
  TensorView workspace;  // any dtype, aligned to 64; at least Fp4GemmWorkspaceBytes(m, n, k), or on a CUDA stream
                         // Fp4GemmDeviceWorkspaceBytes
};
void Fp4Gemm(const Fp4GemmArgs& args, Stream& stream);

int64_t Fp4GemmWorkspaceBytes(int64_t m, int64_t n, int64_t k);
int64_t Fp4GemmDeviceWorkspaceBytes(int64_t m, int64_t n, int64_t k);

// Whether products of NVFP4 of this shape run on tensor cores of the stream's device. The emulated device, where all
// products cost the same, says so of all shapes; the CPU never.
bool HasFp4Products(int64_t n, int64_t k, Stream& stream);

}  // namespace trainyard::kernels
