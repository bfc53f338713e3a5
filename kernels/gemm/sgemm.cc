#include "kernels/gemm/sgemm.h"

#include <cblas.h>

#include <algorithm>

namespace trainyard::kernels {

void Sgemm(const SgemmArgs& args) {
  // Once, before the first product: OpenBLAS must not cut work by its own idea of the machine.
  static const bool single_threaded = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(single_threaded);
  if (args.m == 0 || args.n == 0) return;
  // The library demands leading dimensions of at least 1, also when there is nothing to read.
  const auto stride = [](int64_t length) { return static_cast<blasint>(std::max<int64_t>(length, 1)); };
  cblas_sgemm(CblasRowMajor, args.transpose_a ? CblasTrans : CblasNoTrans, args.transpose_b ? CblasTrans : CblasNoTrans,
              static_cast<blasint>(args.m), static_cast<blasint>(args.n), static_cast<blasint>(args.k), args.alpha,
              args.a, stride(args.lda), args.b, stride(args.ldb), args.beta, args.c, stride(args.ldc));
}

}  // namespace trainyard::kernels
