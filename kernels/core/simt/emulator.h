// Runs CUDA kernels on the CPU, one thread of a block at a time, so that every kernel is tested on machines without a
// GPU. Threads are fibers: one runs until it ends or waits at a barrier. Memory is the program's own; there is no
// cache, no clock and no tensor core. What it finds beside wrong numbers:
//   - a barrier or warp operation that not all threads reach aborts ("divergent");
//   - dynamic shared memory starts as NaN patterns, so that a read before a write shows;
//   - threads and blocks run in the order of SetOrder, so that a result that depends on the order shows.
// Numbers are those of a GPU where kernels use IEEE operations only: this code is compiled without contraction of
// products and sums, and nvcc with -fmad=false.
//
// The words of the language (threadIdx, __shared__, __syncthreads ...) are in cuda_words.h.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "absl/functional/function_ref.h"

namespace trainyard::simt {

inline constexpr int kWarpSize = 32;

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

// What a kernel asks about the thread that runs it.
struct Place {
  Index thread, block;
  Extent block_extent, grid_extent;
};
const Place& CurrentPlace();

enum class Order { kForward, kBackward };
// Of all kernels launched later by this process.
void SetOrder(Order order);

// Runs body() once for every thread of the grid. Blocks run one after the other; at most 1024 threads a block.
void Run(Extent grid, Extent block, int64_t shared_bytes, absl::FunctionRef<void()> body);

// The launch's shared_bytes, of the block that runs.
void* DynamicShared();

void SyncThreads();

// All lanes of `mask` that exist wait for each other; aborts if one of them has ended.
void SyncWarp(uint32_t mask);

namespace internal {
// Deposits `value`, waits for the lanes of `mask`, and returns lane's deposit (the own one if there is no such lane).
uint64_t Exchange(uint32_t mask, uint64_t value, int lane);
int CurrentLane();
}  // namespace internal

template <typename T>
T ShuffleFrom(uint32_t mask, T value, int lane) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = internal::Exchange(mask, bits, lane);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// One bit a lane of `mask`: whether its predicate is not 0.
uint32_t Ballot(uint32_t mask, bool predicate);

}  // namespace trainyard::simt
