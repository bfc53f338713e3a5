#include "worker/comm/reduce.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/core/simd.h"

namespace trainyard::comm {
namespace {

using kernels::BFloat16;

// Partial sums stay in the first-level cache, and `out` is written only after all pieces of a block were read.
constexpr int64_t kBlock = 2048;

template <typename T>
TY_INLINE void Sum(const void* const* pieces, int ranks, int64_t count, float scale, T* out) {
  alignas(64) float sum[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t block = std::min(kBlock, count - begin);
    const T* first = static_cast<const T*>(pieces[0]) + begin;
    for (int64_t i = 0; i < block; ++i) sum[i] = kernels::ToFloat(first[i]);
    for (int rank = 1; rank < ranks; ++rank) {
      const T* piece = static_cast<const T*>(pieces[rank]) + begin;
      for (int64_t i = 0; i < block; ++i) sum[i] += kernels::ToFloat(piece[i]);
    }
    for (int64_t i = 0; i < block; ++i) out[begin + i] = kernels::FromFloat<T>(sum[i] * scale);
  }
}

TY_SIMD void SumF32(const void* const* pieces, int ranks, int64_t count, float scale, void* out) {
  Sum(pieces, ranks, count, scale, static_cast<float*>(out));
}

TY_SIMD void SumBF16(const void* const* pieces, int ranks, int64_t count, float scale, void* out) {
  Sum(pieces, ranks, count, scale, static_cast<BFloat16*>(out));
}

}  // namespace

void SumInRankOrder(const void* const* pieces, int ranks, int64_t count, kernels::DType dtype, float scale, void* out) {
  TY_CHECK_GE(ranks, 1);
  if (dtype == kernels::DType::kF32) {
    SumF32(pieces, ranks, count, scale, out);
  } else {
    TY_CHECK(dtype == kernels::DType::kBF16);
    SumBF16(pieces, ranks, count, scale, out);
  }
}

}  // namespace trainyard::comm
