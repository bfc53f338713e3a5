// For <op>_cuda.cu: the sum of blocked_sum.h on a CUDA device, bit for bit. A warp does a piece, a block of threads a
// block of the sum; the host adds up the blocks.
//
// A piece is a struct, passed by value, with
//   __device__ double operator()(int64_t begin, int64_t end) const;   // by all lanes of a warp; all get the same
#pragma once

#include "kernels/codec/blocked_sum.h"
#include "kernels/codec/result_memory.h"
#include "kernels/core/launch.h"

namespace trainyard::kernels::internal {

inline constexpr int kSumWarps = 16;

template <typename Piece>
__global__ void BlockedSumKernel(Piece piece, int64_t count, int64_t piece_size, int64_t block_size, double* sums) {
  __shared__ double partials[kSumWarps];
  const int warp = static_cast<int>(threadIdx.x / 32);
  const int64_t block_begin = blockIdx.x * block_size;
  const int64_t block_end = block_begin + block_size < count ? block_begin + block_size : count;
  const int64_t pieces = (block_end - block_begin + piece_size - 1) / piece_size;
  double sum = 0;
  for (int64_t first = 0; first < pieces; first += kSumWarps) {
    if (first + warp < pieces) {
      const int64_t begin = block_begin + (first + warp) * piece_size;
      const double value = piece(begin, begin + piece_size < block_end ? begin + piece_size : block_end);
      if (threadIdx.x % 32 == 0) partials[warp] = value;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      const int in_round = static_cast<int>(pieces - first < kSumWarps ? pieces - first : kSumWarps);
      for (int p = 0; p < in_round; ++p) sum += partials[p];
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Waits for the result.
template <typename Piece>
double BlockedSumCuda(int64_t count, int64_t piece_size, Stream& stream, const Piece& piece) {
  if (count == 0) return 0;
  static_assert(ResultMemory::kDoubles >= kSumBlocks);
  const BlockedSumLayout layout = LayOutBlockedSum(count, piece_size);
  const ResultMemory sums;
  Launch(stream, {.blocks = layout.blocks, .threads = 32 * kSumWarps}, BlockedSumKernel<Piece>, piece, count,
         piece_size, layout.block_size, sums.data());
  TY_CHECK_OK(stream.Synchronize());
  double sum = 0;
  for (int64_t block = 0; block < layout.blocks; ++block) sum += sums.data()[block];
  return sum;
}

}  // namespace trainyard::kernels::internal
