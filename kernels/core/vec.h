// Several neighbouring elements as one value, so that kernels that memory bounds load and store 16 bytes at once.
//
//   constexpr int kWidth = kVecWidth<T>;
//   Vec<float, kWidth> x = Widen(LoadVec<kWidth>(row + kWidth * i));   // row aligned to 16 bytes
//   for (int e = 0; e < kWidth; ++e) x[e] *= scale;
//   StoreVec(row + kWidth * i, Narrow<T>(x));
//
// For host and device; arrays of Vec stay in registers where all their indices are known to the compiler (TY_UNROLL).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "base/check.h"
#include "kernels/core/dtype.h"
#include "kernels/core/simd.h"
#include "kernels/core/unroll.h"

namespace trainyard::kernels {

inline constexpr int64_t kVecBytes = 16;  // the widest load of a thread on every GPU that we build for

// kWidth: a power of two. Aligned to its size, at most to kVecBytes: longer ones are several loads.
template <typename T, int kWidth>
struct alignas(std::min<size_t>(sizeof(T) * kWidth, kVecBytes)) Vec {
  static_assert(kWidth > 0 && (kWidth & (kWidth - 1)) == 0);
  T at[kWidth];
  TY_INLINE T& operator[](int i) { return at[i]; }
  TY_INLINE const T& operator[](int i) const { return at[i]; }
};

// Elements of the narrowest of these types in kVecBytes: f32 with bf16 gives 8.
template <typename... T>
inline constexpr int kVecWidth = static_cast<int>(kVecBytes / std::min({sizeof(T)...}));

// `from` and `to` must be aligned as the Vec is; where the host's compiler made the code, that is checked.
template <int kWidth, typename T>
TY_INLINE Vec<std::remove_const_t<T>, kWidth> LoadVec(T* from) {
  using V = Vec<std::remove_const_t<T>, kWidth>;
#if defined(__CUDA_ARCH__)
  return *reinterpret_cast<const V*>(from);
#else
  TY_CHECK(reinterpret_cast<uintptr_t>(from) % alignof(V) == 0);
  V vec;
  std::memcpy(&vec, from, sizeof(V));
  return vec;
#endif
}
template <int kWidth, typename T>
TY_INLINE void StoreVec(T* to, const Vec<T, kWidth>& vec) {
  using V = Vec<T, kWidth>;
#if defined(__CUDA_ARCH__)
  *reinterpret_cast<V*>(to) = vec;
#else
  TY_CHECK(reinterpret_cast<uintptr_t>(to) % alignof(V) == 0);
  std::memcpy(to, &vec, sizeof(V));
#endif
}

template <typename T, int kWidth>
TY_INLINE Vec<float, kWidth> Widen(const Vec<T, kWidth>& vec) {
  Vec<float, kWidth> wide;
  TY_UNROLL
  for (int e = 0; e < kWidth; ++e) wide[e] = ToFloat(vec[e]);
  return wide;
}

// Two FromFloat. A GPU does it in one instruction, whose NaN is always 0x7FFF.
TY_INLINE void RoundPair(float a, float b, BFloat16* pair) {
#if defined(__CUDA_ARCH__)
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(b), "f"(a));
  pair[0] = {static_cast<uint16_t>(bits)};
  pair[1] = {static_cast<uint16_t>(bits >> 16)};
#else
  pair[0] = FromFloat<BFloat16>(a);
  pair[1] = FromFloat<BFloat16>(b);
#endif
}

// FromFloat of every element.
template <typename T, int kWidth>
TY_INLINE Vec<T, kWidth> Narrow(const Vec<float, kWidth>& wide) {
  Vec<T, kWidth> vec;
  if constexpr (std::is_same_v<T, BFloat16> && kWidth % 2 == 0) {
    TY_UNROLL
    for (int e = 0; e < kWidth; e += 2) RoundPair(wide[e], wide[e + 1], &vec[e]);
  } else {
    TY_UNROLL
    for (int e = 0; e < kWidth; ++e) vec[e] = FromFloat<T>(wide[e]);
  }
  return vec;
}

// Whether vectors of 16 bytes may begin at all of these; a null pointer stands for a tensor that is not there.
template <typename... T>
bool AllVecAligned(const T*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % kVecBytes == 0) && ...);
}

}  // namespace trainyard::kernels
