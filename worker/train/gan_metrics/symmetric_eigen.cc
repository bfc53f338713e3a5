#include "worker/train/gan_metrics/symmetric_eigen.h"

#include <cblas.h>

#include <algorithm>

#include "base/check.h"

// Debian's OpenBLAS carries LAPACK, but no C header for it.
extern "C" void dsyev_(const char* jobz, const char* uplo, const int* n, double* a, const int* lda, double* w,
                       double* work, const int* lwork, int* info, size_t jobz_length, size_t uplo_length);

namespace trainyard::train {

std::vector<double> SymmetricEigen(std::vector<double>& matrix, int64_t size) {
  TY_CHECK_GE(size, 1);
  TY_CHECK_EQ(matrix.size(), static_cast<size_t>(size * size));
  openblas_set_num_threads(1);
  const int n = static_cast<int>(size);
  std::vector<double> values(static_cast<size_t>(size));
  std::vector<double> work(static_cast<size_t>(std::max<int64_t>(1, 34 * size)));  // blocks of 32
  const int work_size = static_cast<int>(work.size());
  int info = 0;
  dsyev_("V", "L", &n, matrix.data(), &n, values.data(), work.data(), &work_size, &info, 1, 1);
  TY_CHECK_EQ(info, 0);  // without NaN, it converges
  return values;
}

}  // namespace trainyard::train
