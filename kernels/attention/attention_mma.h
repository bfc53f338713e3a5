// What the tensor-core kernels of attention share. bf16 storage, head_dim a multiple of 8 up to 128; blocks of four
// warps with 16 rows each. For attention_mma_*cuda.cu only.
#pragma once

#include "kernels/attention/attention_tiles.h"
#include "kernels/attention/warp_mma.h"
#include "kernels/core/math.h"

namespace trainyard::kernels::internal {

inline constexpr int kMmaThreads = 128;
inline constexpr int kMmaRows = 64;  // of a block: 16 a warp

// Rows in shared memory, kDim (64 or 128) elements that exist or are 0.
template <int kDim>
inline constexpr int kMmaStride = kDim + 8;

inline bool IsAlignedTo16(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}
inline bool FitsTensorCores(const AttentionShape& shape, DType dtype) {
  return dtype == DType::kBF16 && shape.head_dim % 8 == 0 && shape.head_dim <= 128;
}

// Starts to copy kRows rows to `to`; rows and columns that do not exist become 0.
template <int kDim, int kRows>
__device__ inline void StartTileCopy(BFloat16* to, const HeadTile<const BFloat16>& rows, int64_t width) {
  constexpr int kChunks = kDim / 8;
#pragma unroll
  for (int i = 0; i < kRows * kChunks / kMmaThreads; ++i) {
    const int chunk = i * kMmaThreads + static_cast<int>(threadIdx.x);
    const int r = chunk / kChunks;
    const int c = chunk % kChunks * 8;
    const bool exists = r < rows.rows && c < width;
    StartCopy16(to + r * kMmaStride<kDim> + c, exists ? rows.data + r * rows.stride + c : rows.data, exists);
  }
}

// kDim / 16 left operands: 16 rows of a tile.
template <int kDim>
__device__ inline void LoadLeftRows(LeftFragment (&words)[kDim / 16], const BFloat16* rows) {
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) LoadLeft<kMmaStride<kDim>>(words[k], rows + 16 * k);
}

// sums (16 x 8 kTiles) += left (16 x kDim) * rows^T, rows: 8 kTiles rows in shared memory.
template <int kDim, int kTiles>
__device__ inline void MultiplyByRows(SumFragment (&sums)[kTiles], const LeftFragment (&left)[kDim / 16],
                                      const BFloat16* rows) {
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      RightFragments right;
      LoadRight<kMmaStride<kDim>>(right, rows + 8 * n * kMmaStride<kDim> + 16 * k);
      Multiply(sums[n], left[k], right[0], right[1]);
      Multiply(sums[n + 1], left[k], right[2], right[3]);
    }
  }
}

// sums (16 x kDim) += weights (16 x 8 kTiles, rounded to bf16) * rows.
template <int kDim, int kTiles>
__device__ inline void AddWeighted(SumFragment (&sums)[kDim / 8], const SumFragment (&weights)[kTiles],
                                   const BFloat16* rows) {
#pragma unroll
  for (int k = 0; k < kTiles / 2; ++k) {
    const SumFragment& first = weights[2 * k];
    const SumFragment& second = weights[2 * k + 1];
    const LeftFragment left = {PackPair(first[0], first[1]), PackPair(first[2], first[3]),
                               PackPair(second[0], second[1]), PackPair(second[2], second[3])};
#pragma unroll
    for (int d = 0; d < kDim / 8; d += 2) {
      RightFragments right;
      LoadRightAcross<kMmaStride<kDim>>(right, rows + 16 * k * kMmaStride<kDim> + 8 * d);
      Multiply(sums[d], left, right[0], right[1]);
      Multiply(sums[d + 1], left, right[2], right[3]);
    }
  }
}

// Stores 16 rows of sums, rows g and g + 8 of this lane times their factors. The largest magnitude that this lane has
// stored, as bits of a float.
template <int kDim>
__device__ inline uint32_t StoreSums(const SumFragment (&sums)[kDim / 8], const float (&factors)[2],
                                     const HeadTile<BFloat16>& rows, int first_row, int64_t width) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  uint32_t largest = 0;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = first_row + lane / 4 + 8 * half;
    if (r >= rows.rows) continue;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      const int c = 8 * d + lane % 4 * 2;
      if (c < width) {
        const uint32_t pair = PackPair(sums[d][2 * half] * factors[half], sums[d][2 * half + 1] * factors[half]);
        *reinterpret_cast<uint32_t*>(rows.data + r * rows.stride + c) = pair;
        largest = LargerMagnitude(BFloat16{static_cast<uint16_t>(pair)}, largest);
        largest = LargerMagnitude(BFloat16{static_cast<uint16_t>(pair >> 16)}, largest);
      }
    }
  }
  return largest;
}

// e^x, on a GPU by its unit for powers of two: within a few units in the last place of FastExp, which the emulated
// device computes.
__device__ inline float WeightExp(float x) {
#if defined(__CUDA_ARCH__)
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x * 1.44269504088896341f));
  return y;
#else
  return FastExp(x);
#endif
}

// Of the four lanes that hold a row of sums; each gets it.
template <typename Combine>
__device__ inline float QuadReduce(float value, const Combine& combine) {
  value = combine(value, __shfl_xor_sync(0xFFFFFFFFu, value, 2));
  return combine(value, __shfl_xor_sync(0xFFFFFFFFu, value, 1));
}

// In attention_mma_cuda.cu and attention_mma_backward_cuda.cu; false if the memory is not aligned for them.
bool AttentionForwardMma(const AttentionForwardArgs& args, uint32_t* amax, Stream& stream);
bool AttentionBackwardMma(const AttentionBackwardArgs& args, const float* dots, Stream& stream);

}  // namespace trainyard::kernels::internal
