#include "kernels/prune/stored_tensor.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/core/simd.h"
#include "kernels/quant/number_format.h"

namespace trainyard::kernels {
namespace internal {
namespace {

template <typename T>
TY_INLINE void WidenScaled(const T* x, int64_t count, float scale, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = WidenToFloat(x[i]) * scale;
}
TY_SIMD void Widen(const BFloat16* x, int64_t count, float scale, float* y) {
  WidenScaled(x, count, scale, y);
}
TY_SIMD void Widen(const Float8E4M3* x, int64_t count, float scale, float* y) {
  WidenScaled(x, count, scale, y);
}
TY_SIMD void Widen(const Float8E5M2* x, int64_t count, float scale, float* y) {
  WidenScaled(x, count, scale, y);
}

template <typename T>
TY_INLINE void NarrowScaled(const float* x, int64_t count, float divisor, T* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = RoundNearest<T>(x[i] / divisor, Overflow::kSaturate);
}
TY_SIMD void Narrow(const float* x, int64_t count, BFloat16* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = RoundNearest<BFloat16>(x[i]);
}
TY_SIMD void Narrow(const float* x, int64_t count, float divisor, Float8E4M3* y) {
  NarrowScaled(x, count, divisor, y);
}
TY_SIMD void Narrow(const float* x, int64_t count, float divisor, Float8E5M2* y) {
  NarrowScaled(x, count, divisor, y);
}

}  // namespace

void CheckStored(const StoredTensor& x, int64_t size) {
  const DType dtype = x.values.dtype();
  TY_CHECK(dtype == DType::kF32 || dtype == DType::kBF16 || HasScale(dtype));
  TY_CHECK_EQ(x.values.size(), size);
  if (!HasScale(dtype)) return;
  TY_CHECK(x.scale.dtype() == DType::kF32);
  TY_CHECK_EQ(x.scale.size(), 1);
}

const float* LoadStored(const StoredTensor& x, int64_t begin, int64_t count, float* buffer) {
  TY_CHECK_LE(count, kPruneBlock);
  switch (x.values.dtype()) {
    case DType::kF32:
      return x.values.as<float>() + begin;
    case DType::kBF16:
      Widen(x.values.as<BFloat16>() + begin, count, 1.0f, buffer);
      return buffer;
    case DType::kF8E4M3:
      Widen(x.values.as<Float8E4M3>() + begin, count, *x.scale.as<float>(), buffer);
      return buffer;
    default:
      Widen(x.values.as<Float8E5M2>() + begin, count, *x.scale.as<float>(), buffer);
      return buffer;
  }
}

void StoreStored(const float* block, int64_t begin, int64_t count, const StoredTensor& x) {
  switch (x.values.dtype()) {
    case DType::kF32: {
      float* const to = x.values.as<float>() + begin;
      if (to != block) std::memcpy(to, block, static_cast<size_t>(count) * sizeof(float));
      return;
    }
    case DType::kBF16:
      return Narrow(block, count, x.values.as<BFloat16>() + begin);
    case DType::kF8E4M3:
      return Narrow(block, count, StoredDivisor(*x.scale.as<float>()), x.values.as<Float8E4M3>() + begin);
    default:
      return Narrow(block, count, StoredDivisor(*x.scale.as<float>()), x.values.as<Float8E5M2>() + begin);
  }
}

}  // namespace internal
}  // namespace trainyard::kernels
