// Eight neighbouring elements as floats, by vector loads and stores where the address allows it. For <op>_cuda.cu.
#pragma once

#include "kernels/core/launch.h"
#include "kernels/core/vec.h"

namespace trainyard::kernels::internal {

inline constexpr int kEight = 8;

// v = from[0..7]. is_aligned: AllVecAligned(from).
template <typename T>
__device__ inline void LoadEight(const T* from, bool is_aligned, float (&v)[kEight]) {
  if (is_aligned) {
    const Vec<float, kEight> loaded = Widen(LoadVec<kEight>(from));
    TY_UNROLL
    for (int i = 0; i < kEight; ++i) v[i] = loaded[i];
  } else {
    TY_UNROLL
    for (int i = 0; i < kEight; ++i) v[i] = ToFloat(from[i]);
  }
}

// to[0..7] = v, rounded to T.
template <typename T>
__device__ inline void StoreEight(const float (&v)[kEight], bool is_aligned, T* to) {
  if (is_aligned) {
    Vec<float, kEight> values;
    TY_UNROLL
    for (int i = 0; i < kEight; ++i) values[i] = v[i];
    StoreVec(to, Narrow<T>(values));
  } else {
    TY_UNROLL
    for (int i = 0; i < kEight; ++i) to[i] = FromFloat<T>(v[i]);
  }
}

}  // namespace trainyard::kernels::internal
