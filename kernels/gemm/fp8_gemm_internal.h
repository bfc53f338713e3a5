#pragma once

#include "kernels/gemm/fp8_gemm.h"

namespace trainyard::kernels::internal {

// What an operand takes of the workspace of a CUDA stream that puts it along k.
inline int64_t Fp8TransposedBytes(int64_t elements) {
  return (elements + 63) / 64 * 64;
}

void Fp8GemmCpu(const Fp8GemmArgs& args, Stream& stream);
// cuBLASLt where the program and the GPU have it, else Fp8GemmTiled.
void Fp8GemmCuda(const Fp8GemmArgs& args, Stream& stream);
// The kernel of gemm_tile.h, on any CUDA stream.
void Fp8GemmTiled(const Fp8GemmArgs& args, Stream& stream);
// y = x^T, elements of a byte, on a CUDA stream.
void Fp8TransposeBytes(const TensorView& x, void* y, Stream& stream);

}  // namespace trainyard::kernels::internal
