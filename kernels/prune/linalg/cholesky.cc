#include "kernels/prune/linalg/cholesky.h"

#include <cblas.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"

// Debian's OpenBLAS carries LAPACK, but no C header for it.
extern "C" {
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info, size_t uplo_length);
void dpotri_(const char* uplo, const int* n, double* a, const int* lda, int* info, size_t uplo_length);
}

namespace trainyard::kernels {

absl::Status InverseCholesky(double* matrix, int64_t size) {
  TY_CHECK_GE(size, 1);
  openblas_set_num_threads(1);
  const int n = static_cast<int>(size);
  int info = 0;
  // Fortran's lower triangle is the upper one of rows. The inverse comes in one triangle too.
  dpotrf_("L", &n, matrix, &n, &info, 1);
  if (info == 0) dpotri_("L", &n, matrix, &n, &info, 1);
  if (info == 0) dpotrf_("L", &n, matrix, &n, &info, 1);
  if (info != 0) return absl::FailedPreconditionError(absl::StrCat("not positive definite at row ", info - 1));
  // matrix^-1 = L L^T by columns is U^T U by rows.
  for (int64_t row = 1; row < size; ++row) {
    for (int64_t col = 0; col < row; ++col) matrix[row * size + col] = 0;
  }
  return absl::OkStatus();
}

void SubtractProduct(const SubtractProductArgs& args) {
  if (args.m == 0 || args.n == 0 || args.k == 0) return;
  openblas_set_num_threads(1);
  cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(args.m), static_cast<int>(args.n),
              static_cast<int>(args.k), -1.0, args.a, static_cast<int>(args.lda), args.b, static_cast<int>(args.ldb),
              1.0, args.c, static_cast<int>(args.ldc));
}

}  // namespace trainyard::kernels
