// For <op>_cuda.cu: max |x| of what a kernel writes, as in largest_magnitude.h. Each thread keeps the largest magnitude
// that it stores, as the bits of a float, whose maximum needs no order; the blocks meet in one atomic.
//
//   uint32_t* const amax = StartAmax(args.amax, stream);   // null if absent
//   ... in the kernel:  largest = LargerMagnitude(stored, largest);
//                       RaiseAmax<kThreads>(largest, amax);    // all threads of the block, at its end
#pragma once

#include "kernels/core/block_reduce.h"
#include "kernels/core/dtype.h"
#include "kernels/core/launch.h"
#include "kernels/core/tensor.h"
#include "kernels/core/vec.h"

namespace trainyard::kernels {

__device__ inline uint32_t LargerMagnitude(float x, uint32_t largest) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x) & 0x7FFFFFFFu;
  return bits > largest ? bits : largest;
}
__device__ inline uint32_t LargerMagnitude(BFloat16 x, uint32_t largest) {
  const uint32_t bits = (uint32_t{x.bits} & 0x7FFFu) << 16;
  return bits > largest ? bits : largest;
}
template <typename T, int kWidth>
__device__ inline uint32_t LargerMagnitude(const Vec<T, kWidth>& x, uint32_t largest) {
  TY_UNROLL
  for (int e = 0; e < kWidth; ++e) largest = LargerMagnitude(x[e], largest);
  return largest;
}

// Does nothing if `amax` is null. All threads of a block of kThreads must call.
template <int kThreads>
__device__ inline void RaiseAmax(uint32_t largest, uint32_t* amax) {
  if (amax == nullptr) return;
  largest = BlockReduce<kThreads>(largest, Max());
  if (threadIdx.x == 0) atomicMax(amax, largest);
}

template <typename T>
__global__ void ZeroScalarKernel(T* y) {
  *y = 0;
}

// What kernels on the stream may raise from now on, 0 at first. Null if `amax` is absent.
inline uint32_t* StartAmax(const TensorView& amax, Stream& stream) {
  if (!amax) return nullptr;
  TY_CHECK_EQ(amax.size(), 1);
  auto* const bits = reinterpret_cast<uint32_t*>(amax.as<float>());
  Launch(stream, {.threads = 1}, ZeroScalarKernel<uint32_t>, bits);
  return bits;
}

}  // namespace trainyard::kernels
