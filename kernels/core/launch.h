// For <op>_cuda.cu only: the language of CUDA, and Launch. The same file is compiled by nvcc for GPUs (--config=cuda)
// and by the host's compiler for the emulated device (--config=simt); what it may use is what both have.
//
//   template <typename T>
//   __global__ void ScaleKernel(T* x, int64_t count, float factor) {
//     for (int64_t i = GlobalThread(); i < count; i += GlobalThreads()) x[i] = FromFloat<T>(ToFloat(x[i]) * factor);
//   }
//   Launch(stream, ElementwiseGrid(count), ScaleKernel<T>, x, count, factor);
//
// Promises of every kernel here: the same bits in every run on one device type (no float atomics; sums in an order that
// follows from the shape alone), and no synchronisation with the host. sqrt and division are IEEE's; products and sums
// are never contracted (write fmaf where one rounding is meant).
#pragma once

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include "kernels/core/simt/cuda_words.h"
#include "kernels/core/simt/guard.h"
#endif

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <type_traits>

#include "base/check.h"
#include "kernels/core/stream.h"

namespace trainyard::kernels {

struct Grid {
  int64_t blocks = 1;
  int threads = 256;                   // a block; at most 1024
  int64_t shared_bytes = 0;            // dynamic shared memory a block: SharedMemory<T>()
  int64_t blocks_y = 1, blocks_z = 1;  // each at most 65535
};

// Enough threads to fill any GPU, for loops with a stride of GlobalThreads() over `count` items of `items_a_thread`.
inline Grid ElementwiseGrid(int64_t count, int64_t items_a_thread = 1) {
  constexpr int kThreads = 256;
  constexpr int64_t kMaxBlocks = 132 * 16;
  const int64_t items = kThreads * items_a_thread;
  const int64_t blocks = (count + items - 1) / items;
  return {.blocks = blocks < 1 ? 1 : blocks > kMaxBlocks ? kMaxBlocks : blocks, .threads = kThreads};
}

// One block a row (or other unit), at most the grid's limit; kernels go on with a stride of gridDim.x.
inline Grid RowGrid(int64_t rows, int threads) {
  constexpr int64_t kMaxBlocks = int64_t{1} << 30;
  return {.blocks = rows < 1 ? 1 : rows > kMaxBlocks ? kMaxBlocks : rows, .threads = threads};
}

inline __device__ int64_t GlobalThread() {
  return int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}
inline __device__ int64_t GlobalThreads() {
  return int64_t{gridDim.x} * blockDim.x;
}

// The block's dynamic shared memory, aligned to 16 bytes.
template <typename T>
__device__ inline T* SharedMemory() {
#if defined(__CUDACC__)
  extern __shared__ __align__(16) unsigned char trainyard_shared_memory[];
  return reinterpret_cast<T*>(trainyard_shared_memory);
#else
  return static_cast<T*>(simt::DynamicShared());
#endif
}

namespace internal {
#if !defined(__CUDACC__)
template <typename T>
void CheckArgument(const T& argument) {
  if constexpr (std::is_pointer_v<T>) simt::CheckReachable(argument);
}
#endif
}  // namespace internal

// Enqueues the kernel. Aborts with the reason if the launch itself is refused (a grid too large, too much shared
// memory); what goes wrong while it runs is Stream::Synchronize's to tell.
template <typename... Parameters, typename... Arguments>
void Launch(Stream& stream, const Grid& grid, void (*kernel)(Parameters...), const Arguments&... arguments) {
#if defined(__CUDACC__)
  if (grid.shared_bytes > (48 << 10)) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared_bytes));
    if (error != cudaSuccess) {
      std::fprintf(stderr, "%lld bytes of shared memory: %s\n", static_cast<long long>(grid.shared_bytes),
                   cudaGetErrorString(error));
      std::abort();
    }
  }
  const dim3 blocks(static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.blocks_y),
                    static_cast<unsigned>(grid.blocks_z));
  kernel<<<blocks, dim3(static_cast<unsigned>(grid.threads)), static_cast<size_t>(grid.shared_bytes),
           static_cast<cudaStream_t>(stream.handle())>>>(static_cast<Parameters>(arguments)...);
  if (const cudaError_t error = cudaPeekAtLastError(); error != cudaSuccess) {
    std::fprintf(stderr, "CUDA kernel launch: %s\n", cudaGetErrorString(error));
    std::abort();
  }
#else
  TY_CHECK(stream.device() == Device::kCuda);
  simt::OpenGuardedMemory();
  (internal::CheckArgument(arguments), ...);
  simt::Run(
      {static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.blocks_y), static_cast<unsigned>(grid.blocks_z)},
      {static_cast<unsigned>(grid.threads), 1, 1}, grid.shared_bytes,
      [&] { kernel(static_cast<Parameters>(arguments)...); });
  simt::CloseGuardedMemory();
#endif
}

}  // namespace trainyard::kernels
