// A matrix as a product of two thin ones.
#pragma once

#include "base/check.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

// X Y: x f32 (rows, r); y f32 (r, cols), or (cols, r) if transpose_y.
struct LowRankFactors {
  TensorView x, y;
  bool transpose_y = false;

  int64_t rows() const { return x.dim(0); }
  int64_t cols() const { return y.dim(transpose_y ? 0 : 1); }
  int64_t rank() const { return x.dim(1); }

  void Check() const {
    TY_CHECK_EQ(x.rank(), 2);
    TY_CHECK_EQ(y.rank(), 2);
    TY_CHECK(x.dtype() == DType::kF32);
    TY_CHECK(y.dtype() == DType::kF32);
    TY_CHECK_EQ(y.dim(transpose_y ? 1 : 0), rank());
  }
};

}  // namespace trainyard::kernels
