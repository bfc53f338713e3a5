// For <op>_cuda.cu: what kernels check, and what the device lets them have.
#pragma once

#include <cassert>
#include <cstdint>

#include "base/check.h"
#include "kernels/core/launch.h"

namespace trainyard::kernels {

// 0 <= index < count, or our own bug, as TY_CHECK: on a GPU the kernel stops with its place on stderr and
// Stream::Synchronize returns the error.
__device__ inline void CheckIndex(int64_t index, int64_t count) {
#if defined(__CUDA_ARCH__)
  assert(index >= 0 && index < count);
#else
  TY_CHECK_GE(index, 0);
  TY_CHECK_LT(index, count);
#endif
}

// The most dynamic shared memory that a block can have on the calling thread's device, a little left for static.
inline int64_t MaxSharedBytes() {
  constexpr int kStaticBytes = 2048;
#if defined(__CUDACC__)
  int device = 0, bytes = 48 << 10;
  if (cudaGetDevice(&device) == cudaSuccess) {
    (void)cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  return bytes - kStaticBytes;
#else
  return (227 << 10) - kStaticBytes;  // an H100's
#endif
}

}  // namespace trainyard::kernels
