// Reductions over the threads of a warp and of a block, for <op>_cuda.cu: the same tree for the same block size, so the
// same bits.
#pragma once

#include "kernels/core/launch.h"

namespace trainyard::kernels {

struct Sum {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

// Of the 32 lanes' values; every lane gets it. All lanes of the warp must call.
template <typename T, typename Combine>
__device__ inline T WarpReduce(T value, const Combine& combine) {
  for (int offset = 16; offset > 0; offset /= 2) value = combine(value, __shfl_xor_sync(0xFFFFFFFFu, value, offset));
  return value;
}

// Of the values of all threads of a block of kThreads (a multiple of 32, threadIdx.x only); every thread gets it. All
// threads must call. May be called again at once.
template <int kThreads, typename T, typename Combine>
__device__ inline T BlockReduce(T value, const Combine& combine) {
  static_assert(kThreads % 32 == 0 && kThreads <= 1024);
  constexpr int kWarps = kThreads / 32;
  value = WarpReduce(value, combine);
  if constexpr (kWarps > 1) {
    __shared__ T partials[kWarps];
    __syncthreads();  // the last call's values have been read
    if (threadIdx.x % 32 == 0) partials[threadIdx.x / 32] = value;
    __syncthreads();
    value = partials[0];
    for (int warp = 1; warp < kWarps; ++warp) value = combine(value, partials[warp]);
  }
  return value;
}

}  // namespace trainyard::kernels
