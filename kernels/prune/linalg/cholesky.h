// Dense linear algebra in double that one-shot pruning needs, through BLAS and LAPACK on the calling thread. The same
// bits every time on one type of CPU.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace trainyard::kernels {

// matrix: (size, size) row-major, symmetric, positive definite; overwritten with the upper triangular U of
//
//   matrix^-1 = U^T U
//
// and zeros below. U[i,i]^2 is the first diagonal element of the inverse of the matrix without its first i rows and
// columns, and U[i,i:] / U[i,i] that inverse's first row over the same element: what removing variables one by one in
// order needs (Frantar and Alistarh, arXiv:2301.00774). FailedPrecondition if it is not positive definite.
absl::Status InverseCholesky(double* matrix, int64_t size);

// matrix: (size, size) row-major, symmetric, positive definite; overwritten with its inverse. FailedPrecondition if it
// is not positive definite.
absl::Status InvertPositive(double* matrix, int64_t size);

// root: (size, size) row-major with root root^T = block^-1, block symmetric. The inverse of the Cholesky factor if
// there is one; of a block that is not positive definite the root of its pseudo-inverse, eigenvalues below size * 2^-52
// * (the largest) counting as zero. All zeros for a block without positive eigenvalues.
void InverseRoot(const double* block, int64_t size, double* root);

// c -= a b. a: (m, k), stored (k, m) if transpose_a, b: (k, n), c: (m, n), row-major with the lengths of stored rows.
struct SubtractProductArgs {
  bool transpose_a = false;
  int64_t m = 0, n = 0, k = 0;
  const double* a = nullptr;
  int64_t lda = 0;
  const double* b = nullptr;
  int64_t ldb = 0;
  double* c = nullptr;
  int64_t ldc = 0;
};
void SubtractProduct(const SubtractProductArgs& args);

}  // namespace trainyard::kernels
