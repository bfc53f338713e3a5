#pragma once

#include "kernels/core/simd.h"
#include "kernels/gemm/fp4_gemm.h"

namespace trainyard::kernels::internal {

// cuBLASLt's place of the scale of group `group` of row `row`: tiles of 128 rows by 4 groups, 512 bytes each, those of
// the same rows after each other; `groups` a row. (CUDA toolkit, cuBLAS, "1D block scaling factors layout".)
TY_INLINE int64_t ScaleTileOffset(int64_t row, int64_t group, int64_t groups) {
  const int64_t tile = row / 128 * ((groups + 3) / 4) + group / 4;
  return tile * 512 + row % 32 * 16 + row % 128 / 32 * 4 + group % 4;
}
// Of all scales of an operand, in whole tiles.
inline int64_t ScaleTileBytes(int64_t rows, int64_t groups) {
  return (rows + 127) / 128 * ((groups + 3) / 4) * 512;
}

void Fp4GemmCpu(const Fp4GemmArgs& args, Stream& stream);
// cuBLASLt where the program and the GPU have it, else Fp4GemmTiled.
void Fp4GemmCuda(const Fp4GemmArgs& args, Stream& stream);
bool HasFp4ProductsCpu(int64_t n, int64_t k, Stream& stream);
bool HasFp4ProductsCuda(int64_t n, int64_t k, Stream& stream);
// The kernel of gemm_tile.h, on any CUDA stream.
void Fp4GemmTiled(const Fp4GemmArgs& args, Stream& stream);
// scales (rows, groups), one byte each, to their places in `tiles`; what no scale has is 0.
void TileScales(const TensorView& scales, uint8_t* tiles, Stream& stream);
void TileScalesCpu(const TensorView& scales, uint8_t* tiles, Stream& stream);
void TileScalesCuda(const TensorView& scales, uint8_t* tiles, Stream& stream);

}  // namespace trainyard::kernels::internal
