// Dense products and solves in float and double, row-major, through BLAS and LAPACK on the calling thread. May be
// called from several threads at once. The bits depend on the shapes and the type of CPU alone.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace trainyard::kernels {

// c = alpha op(a) op(b) + beta c.   op(a): (m, k), op(b): (k, n), c: (m, n); the lengths of stored rows are lda, ldb,
// ldc. With beta 0, c is not read. c aliases nothing. T: float or double.
template <typename T>
struct ProductArgs {
  bool transpose_a = false;
  bool transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  T alpha = 1;
  const T* a = nullptr;
  int64_t lda = 0;
  const T* b = nullptr;
  int64_t ldb = 0;
  T beta = 0;
  T* c = nullptr;
  int64_t ldc = 0;
};
template <typename T>
void Product(const ProductArgs<T>& args);

extern template void Product<float>(const ProductArgs<float>&);
extern template void Product<double>(const ProductArgs<double>&);

// right = matrix^-1 right, by Cholesky. matrix: (size, size), symmetric, of which the upper triangle is read and
// overwritten with its factor; right: (size, cols). FailedPrecondition, with the row, if it is not positive definite
// (a NaN in it is not).
absl::Status SolvePositiveDefinite(double* matrix, int64_t size, double* right, int64_t cols);

}  // namespace trainyard::kernels
