// The states of pruning optimizers in narrow storage: f32 or bf16 as they are, FP8 with one scale for the tensor
// (shared/methods/elsa.md 2.6).
//
//   scale = max(1e-8, 1.05 max|x| / largest)     code = round(x / (scale + 1e-12))     x is read as code * scale
//
// largest: 448 (E4M3) or 57344 (E5M2). The margin of 5 % keeps values below the largest code; the largest x comes back
// as 0.975 of itself in E4M3 and as 1.05 in E5M2. Zeros stay zero. bf16 rounds to nearest even.
#pragma once

#include <cstdint>

#include "kernels/core/simd.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct StoredTensor {
  TensorView values;      // f32, bf16, f8_e4m3 or f8_e5m2
  TensorView scale = {};  // f32 (1), with FP8 only

  explicit operator bool() const { return static_cast<bool>(values); }
};

inline bool HasScale(DType dtype) {
  return dtype == DType::kF8E4M3 || dtype == DType::kF8E5M2;
}

// The scale for values up to `largest_magnitude`; 1 for f32 and bf16.
TY_INLINE float StoredScale(DType dtype, float largest_magnitude) {
  if (dtype != DType::kF8E4M3 && dtype != DType::kF8E5M2) return 1.0f;
  const float scale = 1.05f * largest_magnitude / (dtype == DType::kF8E4M3 ? 448.0f : 57344.0f);
  return scale > 1e-8f ? scale : 1e-8f;
}

namespace internal {

inline constexpr int64_t kPruneBlock = 512;  // elements; a multiple of 8, so blocks of a mask are whole bytes
inline constexpr int64_t kPruneGrain = 16 * kPruneBlock;

// What a value is divided by before it is rounded to FP8.
TY_INLINE float StoredDivisor(float scale) {
  return scale + 1e-12f;
}

// Aborts unless x has `size` elements, one of the four dtypes, and a scale if that is FP8.
void CheckStored(const StoredTensor& x, int64_t size);

// Elements [begin, begin + count), count <= kPruneBlock, as floats: the tensor's own memory if it is f32, else
// `buffer`.
const float* LoadStored(const StoredTensor& x, int64_t begin, int64_t count, float* buffer);

// Rounds into elements [begin, begin + count), with the scale that x has.
void StoreStored(const float* block, int64_t begin, int64_t count, const StoredTensor& x);

}  // namespace internal
}  // namespace trainyard::kernels
