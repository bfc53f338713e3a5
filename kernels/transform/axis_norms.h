// Norms of the columns or of the rows of a matrix: how much of it lies along each vector of a basis
// (dct-lowrank.md 2.3).
//
//   axis 1: norms[j] = (sum_i |x[i,j]|^p)^(1/p)     one a column
//   axis 0: norms[i] = (sum_j |x[i,j]|^p)^(1/p)     one a row
//
// x: f32 (rows, cols); norms: f32, overwritten. p is 1 or 2. Blocks of 32 rows (axis 1) or 512 columns (axis 0) are
// summed in f32, the blocks in f64, in a fixed order: the same bits for any number of threads.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

enum class NormOrder { kL1 = 1, kL2 = 2 };

struct AxisNormsArgs {
  TensorView x, norms;
  int axis = 1;
  NormOrder order = NormOrder::kL2;
};
void AxisNorms(const AxisNormsArgs& args, Stream& stream);

}  // namespace trainyard::kernels
