// One single-threaded float matrix product, row-major, through OpenBLAS: what the ops split over our own threads.
//
//   C = alpha * op(A) * op(B) + beta * C     op(A) (m, k), op(B) (k, n), C (m, n)
//
// Leading dimensions are the lengths of stored rows. With beta 0, C is not read. May be called from several threads at
// once; OpenBLAS' own threads are switched off at the first call. The bits of the result depend on the shape and the
// CPU type, so ops cut work at places that depend on the shape alone.
#pragma once

#include <cstdint>

namespace trainyard::kernels {

struct SgemmArgs {
  bool transpose_a = false;
  bool transpose_b = false;
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  float alpha = 1;
  const float* a = nullptr;
  int64_t lda = 0;
  const float* b = nullptr;
  int64_t ldb = 0;
  float beta = 0;
  float* c = nullptr;
  int64_t ldc = 0;
};

void Sgemm(const SgemmArgs& args);

}  // namespace trainyard::kernels
