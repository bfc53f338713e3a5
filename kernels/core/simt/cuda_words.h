// The words of CUDA C++ that our kernels use, for the emulated device. Include kernels/core/launch.h, which picks this
// file or CUDA's own headers.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/core/simt/emulator.h"

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
// One host thread runs a whole block, so its own static is what the block's threads share. Keeps the last block's
// values: kernels must write before they read.
#define __shared__ static thread_local

#define threadIdx (::trainyard::simt::CurrentPlace().thread)
#define blockIdx (::trainyard::simt::CurrentPlace().block)
#define blockDim (::trainyard::simt::CurrentPlace().block_extent)
#define gridDim (::trainyard::simt::CurrentPlace().grid_extent)

// GCC has __sync_* builtins, but none of these names.
inline void __syncthreads() {
  ::trainyard::simt::SyncThreads();
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) {
  ::trainyard::simt::SyncWarp(mask);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  const int self = ::trainyard::simt::internal::CurrentLane();
  return ::trainyard::simt::ShuffleFrom(mask, value, self / width * width + (lane & (width - 1)));
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const int self = ::trainyard::simt::internal::CurrentLane();
  const int lane = self ^ lane_mask;
  return ::trainyard::simt::ShuffleFrom(mask, value, lane / width <= self / width ? lane : self);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int self = ::trainyard::simt::internal::CurrentLane();
  const int lane = self + static_cast<int>(delta);
  return ::trainyard::simt::ShuffleFrom(mask, value, lane / width == self / width ? lane : self);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int self = ::trainyard::simt::internal::CurrentLane();
  const int lane = self - static_cast<int>(delta);
  return ::trainyard::simt::ShuffleFrom(mask, value, lane >= self / width * width ? lane : self);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return ::trainyard::simt::Ballot(mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate) {
  return ::trainyard::simt::Ballot(mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return ::trainyard::simt::Ballot(mask, predicate == 0) == 0;
}
inline void __threadfence() {}

// Atomics return the old value. Floats are left out: the order of their sums would show in the bits.
template <typename T>
T atomicAdd(T* address, T value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicOr(T* address, T value) {
  return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicMax(T* address, T value) {
  const T old = *address;
  *address = std::max(old, value);
  return old;
}
template <typename T>
T atomicMin(T* address, T value) {
  const T old = *address;
  *address = std::min(old, value);
  return old;
}

inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __clz(int x) {
  return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline float __uint_as_float(unsigned x) {
  return __builtin_bit_cast(float, x);
}
inline unsigned __float_as_uint(float x) {
  return __builtin_bit_cast(unsigned, x);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((uint64_t{a} * b) >> 32);
}
template <typename T>
T __ldg(const T* address) {
  return *address;
}
