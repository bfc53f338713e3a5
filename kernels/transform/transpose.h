// Transpose of a matrix, on request with a grouped Hadamard transform along what was its columns:
//
//   y = x^T                      group 0
//   y = H (s o x^T)              otherwise, row by row of y as in hadamard.h, bit for bit
//
// What a product that contracts over the rows of its operands needs where groups with a scale lie along the contraction
// (quartet.md 2.4, quartet2.md 2.6).
// x: (rows, cols); y: (cols, rows), overwritten; f32 or bf16 each, arithmetic in f32, rounded once. y aliases nothing.
// group: 16 to 128, a power of two that divides `rows`. signs: f32 of +-1, optional, a multiple of `group` long that
// divides `rows`. Same bits for any number of threads.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

inline constexpr int64_t kMaxTransposeGroup = 128;

struct TransposeArgs {
  TensorView x, y;
  int64_t group = 0;
  TensorView signs = {};  // optional, with a group
};
void Transpose(const TransposeArgs& args, Stream& stream);

}  // namespace trainyard::kernels
