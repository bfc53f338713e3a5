// For <op>_cuda.cu: walks over the cells of a matrix in steps of many threads, with one division in all.
//
//   for (Cells at(GlobalThread(), GlobalThreads(), cols); at.row < rows; at.Next()) y[at.row * cols + at.col] = ...;
#pragma once

#include <cstdint>

#include "kernels/core/launch.h"

namespace trainyard::kernels {

struct Cells {
  // Cells first, first + step, first + 2 step ... in row-major order. cols >= 1.
  __device__ Cells(int64_t first, int64_t step, int64_t cols)
      : row(first / cols), col(first % cols), row_step_(step / cols), col_step_(step % cols), cols_(cols) {}
  __device__ void Next() {
    row += row_step_;
    col += col_step_;
    if (col >= cols_) {
      col -= cols_;
      ++row;
    }
  }

  int64_t row, col;

 private:
  int64_t row_step_, col_step_, cols_;
};

}  // namespace trainyard::kernels
