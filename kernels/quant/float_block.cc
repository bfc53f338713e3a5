#include "kernels/quant/float_block.h"

#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void FromBF16(const BFloat16* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = ToFloat(x[i]);
}

TY_SIMD void ToBF16(const float* x, BFloat16* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<BFloat16>(x[i]);
}

}  // namespace

const float* LoadFloats(const TensorView& x, int64_t first, int64_t count, float* buffer) {
  if (x.dtype() == DType::kF32) return x.as<float>() + first;
  FromBF16(x.as<BFloat16>() + first, buffer, count);
  return buffer;
}

float* FloatsOf(const TensorView& y, int64_t first, float* buffer) {
  return y.dtype() == DType::kF32 ? y.as<float>() + first : buffer;
}

void StoreFloats(const float* values, const TensorView& y, int64_t first, int64_t count) {
  if (y.dtype() == DType::kBF16) ToBF16(values, y.as<BFloat16>() + first, count);
}

bool IsFloatStorage(const TensorView& x) {
  return x.dtype() == DType::kF32 || x.dtype() == DType::kBF16;
}

}  // namespace trainyard::kernels::internal
