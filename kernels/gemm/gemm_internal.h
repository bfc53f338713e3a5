// The backends of Gemm, and how the CPU's cuts a product with bf16 operands into panels that are widened to f32.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/gemm/gemm.h"

namespace trainyard::kernels::internal {

// Extents of one panel product: large enough that widening, which is quadratic, costs little beside the product, and
// bounded, so that a vocabulary of 128k rows does not need gigabytes.
struct WidenedPanels {
  WidenedPanels(int64_t m, int64_t n, int64_t k)
      : rows(std::min<int64_t>(m, 2048)), cols(std::min<int64_t>(n, 2048)), depth(std::clamp<int64_t>(k, 1, 4096)) {}

  int64_t a_floats() const { return RoundUp(rows * depth); }
  int64_t b_floats() const { return RoundUp(depth * cols); }
  int64_t c_floats() const { return RoundUp(rows * cols); }
  int64_t bytes() const { return 4 * (a_floats() + b_floats() + c_floats()); }

  int64_t rows, cols, depth;

 private:
  static int64_t RoundUp(int64_t floats) { return (floats + 15) / 16 * 16; }
};

void GemmCpu(const GemmArgs& args, Stream& stream);
// cuBLASLt where the program has it and it takes the product, else GemmTiled.
void GemmCuda(const GemmArgs& args, Stream& stream);
// The kernel of gemm_tile.h, on any CUDA stream.
void GemmTiled(const GemmArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
