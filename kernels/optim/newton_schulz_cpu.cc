#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/optim/newton_schulz.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kNormalizeGrain = 8192;

template <typename T>
TY_INLINE void ScaleRange(const float* x, float scale, int64_t count, T* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<T>(x[i] * scale);
}
TY_SIMD void ScaleInto(const float* x, float scale, int64_t count, float* y) {
  ScaleRange(x, scale, count, y);
}
TY_SIMD void ScaleInto(const float* x, float scale, int64_t count, BFloat16* y) {
  ScaleRange(x, scale, count, y);
}

}  // namespace

void NormalizeByCpu(const TensorView& x, const TensorView& norm, const TensorView& y, Stream& stream) {
  const float scale = 1.0f / (*norm.as<float>() + 1e-7f);
  const float* from = x.as<float>();
  DispatchFloat(y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* to = y.as<T>();
    stream.pool().ParallelFor(x.size(), kNormalizeGrain, [&](int64_t begin, int64_t end) {
      ScaleInto(from + begin, scale, end - begin, to + begin);
    });
  });
}

}  // namespace trainyard::kernels::internal
