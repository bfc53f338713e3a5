// Eight floats that the compiler keeps in one register: for loops whose lanes exchange places, which the compiler does
// not vectorise by itself. The same operations in the same order on every CPU of the baseline.
#pragma once

#include <cstdint>

#include "kernels/core/dtype.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {

inline constexpr int64_t kVectorLanes = 8;
using Vector8 = float __attribute__((vector_size(32)));

TY_INLINE Vector8 Load8(const float* x) {
  Vector8 v;
  __builtin_memcpy(&v, x, sizeof(v));
  return v;
}
TY_INLINE Vector8 Load8(const BFloat16* x) {
  using Halves = uint16_t __attribute__((vector_size(16)));
  using Words = uint32_t __attribute__((vector_size(32)));
  Halves halves;
  __builtin_memcpy(&halves, x, sizeof(halves));
  const Words words = __builtin_convertvector(halves, Words) << 16;
  return __builtin_bit_cast(Vector8, words);
}

TY_INLINE void Store8(Vector8 v, float* y) {
  __builtin_memcpy(y, &v, sizeof(v));
}
// As FromFloat<BFloat16>: to nearest, ties to even; NaN stays NaN.
TY_INLINE void Store8(Vector8 v, BFloat16* y) {
  using Halves = uint16_t __attribute__((vector_size(16)));
  using Words = uint32_t __attribute__((vector_size(32)));
  const Words bits = __builtin_bit_cast(Words, v);
  const Words rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  const Words quiet_nan = (bits >> 16) | 0x40;
  const Words is_nan = __builtin_bit_cast(Words, v != v);
  const Halves halves = __builtin_convertvector((quiet_nan & is_nan) | (rounded & ~is_nan), Halves);
  __builtin_memcpy(y, &halves, sizeof(halves));
}

// v[i] becomes column i of the 8 x 8 matrix whose rows were v[0..7].
TY_INLINE void Transpose8(Vector8* v) {
  Vector8 t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[2 * i + 1] = __builtin_shufflevector(v[2 * i], v[2 * i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  Vector8 u[8];
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const Vector8* from = t + 4 * half;
    Vector8* to = u + 4 * half;
    to[0] = __builtin_shufflevector(from[0], from[2], 0, 1, 8, 9, 4, 5, 12, 13);
    to[1] = __builtin_shufflevector(from[0], from[2], 2, 3, 10, 11, 6, 7, 14, 15);
    to[2] = __builtin_shufflevector(from[1], from[3], 0, 1, 8, 9, 4, 5, 12, 13);
    to[3] = __builtin_shufflevector(from[1], from[3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[i] = __builtin_shufflevector(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    v[i + 4] = __builtin_shufflevector(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

}  // namespace trainyard::kernels::internal
