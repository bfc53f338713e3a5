#include "kernels/attention/attention_blocks.h"

#include "kernels/core/dtype.h"

namespace trainyard::kernels::internal {
namespace {

template <typename T>
TY_INLINE void Store(const float* x, const float* factors, int64_t rows, int64_t cols, HeadRows<T> y) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = x + r * cols;
    T* to = y.row(r);
    const float factor = factors == nullptr ? 1.0f : factors[r];
    for (int64_t c = 0; c < cols; ++c) to[c] = FromFloat<T>(from[c] * factor);
  }
}

}  // namespace

HeadRows<const float> AsFloats(HeadRows<const float> x, int64_t, int64_t, float*) {
  return x;
}

TY_SIMD HeadRows<const float> AsFloats(HeadRows<const BFloat16> x, int64_t rows, int64_t cols, float* scratch) {
  for (int64_t r = 0; r < rows; ++r) {
    const BFloat16* from = x.row(r);
    float* to = scratch + r * cols;
    for (int64_t c = 0; c < cols; ++c) to[c] = ToFloat(from[c]);
  }
  return {scratch, cols};
}

TY_SIMD void StoreRows(const float* x, const float* factors, int64_t rows, int64_t cols, HeadRows<float> y) {
  Store(x, factors, rows, cols, y);
}

TY_SIMD void StoreRows(const float* x, const float* factors, int64_t rows, int64_t cols, HeadRows<BFloat16> y) {
  Store(x, factors, rows, cols, y);
}

}  // namespace trainyard::kernels::internal
