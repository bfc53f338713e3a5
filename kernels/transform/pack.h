// Eight neighbouring elements of a row as floats, by 16-byte accesses where the address allows it. For <op>_cuda.cu.
#pragma once

#include "kernels/core/dtype.h"
#include "kernels/core/launch.h"

namespace trainyard::kernels::internal {

inline constexpr int kPackItems = 8;

// What one load or store instruction moves.
template <typename T>
struct alignas(16) Pack16 {
  T values[16 / sizeof(T)];
};

inline bool IsAligned16(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % 16 == 0;
}

// v = from[0..7]. is_aligned: `from` is a multiple of 16.
template <typename T>
__device__ inline void LoadEight(const T* from, bool is_aligned, float (&v)[kPackItems]) {
  constexpr int kValues = 16 / static_cast<int>(sizeof(T));
  if (is_aligned) {
    for (int i = 0; i < kPackItems; i += kValues) {
      const Pack16<T> pack = *reinterpret_cast<const Pack16<T>*>(from + i);
      for (int j = 0; j < kValues; ++j) v[i + j] = ToFloat(pack.values[j]);
    }
  } else {
    for (int i = 0; i < kPackItems; ++i) v[i] = ToFloat(from[i]);
  }
}

// to[0..7] = v, rounded to T.
template <typename T>
__device__ inline void StoreEight(const float (&v)[kPackItems], bool is_aligned, T* to) {
  constexpr int kValues = 16 / static_cast<int>(sizeof(T));
  if (is_aligned) {
    for (int i = 0; i < kPackItems; i += kValues) {
      Pack16<T> pack;
      for (int j = 0; j < kValues; ++j) pack.values[j] = FromFloat<T>(v[i + j]);
      *reinterpret_cast<Pack16<T>*>(to + i) = pack;
    }
  } else {
    for (int i = 0; i < kPackItems; ++i) to[i] = FromFloat<T>(v[i]);
  }
}

}  // namespace trainyard::kernels::internal
