#include "kernels/linalg/dense.h"

#include <cblas.h>

#include <type_traits>

#include "absl/strings/str_cat.h"
#include "base/check.h"

// Debian's OpenBLAS carries LAPACK, but no C header for it.
extern "C" {
void dpotrf_(const char* uplo, const int* n, double* a, const int* lda, int* info, size_t uplo_length);
}

namespace trainyard::kernels {
namespace {

// Our own threads split the work.
void KeepToOneThread() {
  [[maybe_unused]] static const bool is_set = [] {
    openblas_set_num_threads(1);
    return true;
  }();
}

}  // namespace

template <typename T>
void Product(const ProductArgs<T>& args) {
  if (args.m == 0 || args.n == 0) return;
  KeepToOneThread();
  const CBLAS_TRANSPOSE a = args.transpose_a ? CblasTrans : CblasNoTrans;
  const CBLAS_TRANSPOSE b = args.transpose_b ? CblasTrans : CblasNoTrans;
  const auto m = static_cast<int>(args.m), n = static_cast<int>(args.n), k = static_cast<int>(args.k);
  const auto lda = static_cast<int>(args.lda), ldb = static_cast<int>(args.ldb), ldc = static_cast<int>(args.ldc);
  if constexpr (std::is_same_v<T, float>) {
    cblas_sgemm(CblasRowMajor, a, b, m, n, k, args.alpha, args.a, lda, args.b, ldb, args.beta, args.c, ldc);
  } else {
    cblas_dgemm(CblasRowMajor, a, b, m, n, k, args.alpha, args.a, lda, args.b, ldb, args.beta, args.c, ldc);
  }
}

template void Product<float>(const ProductArgs<float>&);
template void Product<double>(const ProductArgs<double>&);

absl::Status SolvePositiveDefinite(double* matrix, int64_t size, double* right, int64_t cols) {
  TY_CHECK_GE(size, 1);
  KeepToOneThread();
  const int n = static_cast<int>(size);
  int info = 0;
  // Fortran's lower triangle is the upper one of rows: matrix = U^T U.
  dpotrf_("L", &n, matrix, &n, &info, 1);
  if (info != 0) return absl::FailedPreconditionError(absl::StrCat("not positive definite at row ", info - 1));
  for (int64_t row = 0; row < size; ++row) {  // a NaN slips through LAPACK's own check
    if (!(matrix[row * size + row] > 0)) {
      return absl::FailedPreconditionError(absl::StrCat("not positive definite at row ", row));
    }
  }
  const auto width = static_cast<int>(cols);
  for (const CBLAS_TRANSPOSE side : {CblasTrans, CblasNoTrans}) {
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasUpper, side, CblasNonUnit, n, width, 1.0, matrix, n, right, width);
  }
  return absl::OkStatus();
}

}  // namespace trainyard::kernels
