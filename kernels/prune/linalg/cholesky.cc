#include "kernels/prune/linalg/cholesky.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"

// Debian's OpenBLAS carries LAPACK, but no C header for it.
extern "C" {
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info, size_t uplo_length);
void dpotri_(const char* uplo, const int* n, double* a, const int* lda, int* info, size_t uplo_length);
void dtrtri_(const char* uplo, const char* diag, const int* n, double* a, const int* lda, int* info, size_t uplo_length,
             size_t diag_length);
void dsyev_(const char* jobz, const char* uplo, const int* n, double* a, const int* lda, double* w, double* work,
            const int* lwork, int* info, size_t jobz_length, size_t uplo_length);
}

namespace trainyard::kernels {
namespace {

// As InverseRoot, from eigenvectors.
void PseudoInverseRoot(const double* block, int64_t size, double* root) {
  const int n = static_cast<int>(size);
  std::vector<double> vectors(block, block + size * size), values(static_cast<size_t>(size));
  std::vector<double> work(static_cast<size_t>(8 * size));
  const int work_size = static_cast<int>(work.size());
  int info = 0;
  dsyev_("V", "L", &n, vectors.data(), &n, values.data(), work.data(), &work_size, &info, 1, 1);
  const double largest = info == 0 ? values.back() : 0.0;  // ascending; 0 also for a block that is not finite
  const double least = largest * static_cast<double>(size) * std::numeric_limits<double>::epsilon();
  for (int64_t row = 0; row < size; ++row) {
    for (int64_t k = 0; k < size; ++k) {
      const double value = values[static_cast<size_t>(k)];
      root[row * size + k] =
          largest > 0 && value > least ? vectors[static_cast<size_t>(k * size + row)] / std::sqrt(value) : 0.0;
    }
  }
}

}  // namespace

absl::Status InvertPositive(double* matrix, int64_t size) {
  TY_CHECK_GE(size, 1);
  openblas_set_num_threads(1);
  const int n = static_cast<int>(size);
  int info = 0;
  dpotrf_("L", &n, matrix, &n, &info, 1);
  if (info == 0) dpotri_("L", &n, matrix, &n, &info, 1);
  if (info != 0) return absl::FailedPreconditionError(absl::StrCat("not positive definite at row ", info - 1));
  // Fortran's lower triangle is the upper one of rows.
  for (int64_t row = 1; row < size; ++row) {
    for (int64_t col = 0; col < row; ++col) matrix[row * size + col] = matrix[col * size + row];
  }
  return absl::OkStatus();
}

void InverseRoot(const double* block, int64_t size, double* root) {
  TY_CHECK_GE(size, 1);
  if (size == 1) {
    *root = *block > 0 ? 1.0 / std::sqrt(*block) : 0.0;
    return;
  }
  openblas_set_num_threads(1);
  const int n = static_cast<int>(size);
  int info = 0;
  std::copy_n(block, size * size, root);
  dpotrf_("L", &n, root, &n, &info, 1);
  if (info == 0) dtrtri_("L", "N", &n, root, &n, &info, 1, 1);
  if (info != 0) return PseudoInverseRoot(block, size, root);
  // L^-1 by columns is L^-T by rows, whose lower triangle is zero.
  for (int64_t row = 1; row < size; ++row) std::fill_n(root + row * size, row, 0.0);
}

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
  cblas_dgemm(CblasRowMajor, args.transpose_a ? CblasTrans : CblasNoTrans, CblasNoTrans, static_cast<int>(args.m),
              static_cast<int>(args.n), static_cast<int>(args.k), -1.0, args.a, static_cast<int>(args.lda), args.b,
              static_cast<int>(args.ldb), 1.0, args.c, static_cast<int>(args.ldc));
}

}  // namespace trainyard::kernels
