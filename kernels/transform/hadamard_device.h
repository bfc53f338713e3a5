// The butterflies of the Hadamard transform for <op>_cuda.cu: each thread holds eight neighbouring elements of a group,
// and thread t + 1 the next eight. Distances 1, 2, 4 and on, (a, b) becoming (a + b, a - b): the order of
// hadamard_cpu.cc, so the same bits as there.
//
// The scale is left to the caller: HadamardScale(group), once, after the last butterfly.
#pragma once

#include <cmath>

#include "kernels/core/launch.h"
#include "kernels/core/vec.h"

namespace trainyard::kernels::internal {

inline constexpr int kHadamardItems = 8;                        // elements a thread
inline constexpr int kHadamardWarpGroup = 32 * kHadamardItems;  // the largest group that one warp holds

inline float HadamardScale(int64_t group) {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(group)));
}

template <int kDistance>
__device__ inline void ButterflyOfItems(float (&v)[kHadamardItems]) {
  TY_UNROLL
  for (int i = 0; i < kHadamardItems; ++i) {
    if ((i & kDistance) != 0) continue;
    const float a = v[i];
    const float b = v[i + kDistance];
    v[i] = a + b;
    v[i + kDistance] = a - b;
  }
}

// Groups of up to kHadamardWarpGroup, at least 8, that start at a multiple of group / 8 threads. All lanes of the warp
// must call.
__device__ inline void HadamardInWarp(int group, float (&v)[kHadamardItems]) {
  ButterflyOfItems<1>(v);
  ButterflyOfItems<2>(v);
  ButterflyOfItems<4>(v);
  for (int lanes = 1; lanes < 32 && lanes * kHadamardItems < group; lanes *= 2) {
    const bool is_second = (threadIdx.x & static_cast<unsigned>(lanes)) != 0;
    TY_UNROLL
    for (int i = 0; i < kHadamardItems; ++i) {
      const float other = __shfl_xor_sync(0xFFFFFFFFu, v[i], lanes);
      v[i] = is_second ? other - v[i] : v[i] + other;
    }
  }
}

// Groups of any size up to 8 blockDim.x. All threads of the block must call; `shared` has room for 8 blockDim.x floats
// (not looked at for groups that one warp holds), and may be used again by the next call at once.
__device__ inline void HadamardInBlock(int group, float* shared, float (&v)[kHadamardItems]) {
  HadamardInWarp(group, v);
  for (int threads = 32; threads * kHadamardItems < group; threads *= 2) {
    __syncthreads();  // the last values have been read
    TY_UNROLL
    for (int i = 0; i < kHadamardItems; ++i) shared[i * blockDim.x + threadIdx.x] = v[i];
    __syncthreads();
    const unsigned partner = threadIdx.x ^ static_cast<unsigned>(threads);
    const bool is_second = partner < threadIdx.x;
    TY_UNROLL
    for (int i = 0; i < kHadamardItems; ++i) {
      const float other = shared[i * blockDim.x + partner];
      v[i] = is_second ? other - v[i] : v[i] + other;
    }
  }
}

}  // namespace trainyard::kernels::internal
