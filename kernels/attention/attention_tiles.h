// What the CUDA kernels of attention share: the layout of heads as a kernel's parameter, and products of tiles of 64
// rows in shared memory for any head_dim and dtype. For attention_*cuda.cu only.
#pragma once

#include <cmath>

#include "kernels/attention/attention_internal.h"
#include "kernels/core/launch.h"
#include "kernels/gemm/gemm_tile.h"
#include "kernels/quant/largest_magnitude_device.h"

namespace trainyard::kernels::internal {

// AttentionShape with the caller's map of heads copied: by value, since the map is not device memory.
struct HeadLayout {
  int64_t batch = 0, seq = 0, q_heads = 0, kv_heads = 0, head_dim = 0, packed_width = 0;
  bool is_mapped = false;
  uint16_t kv_of_head[kMaxMappedHeads] = {};

  __device__ int64_t KvHead(int64_t head) const { return is_mapped ? kv_of_head[head] : head / (q_heads / kv_heads); }
};

inline HeadLayout LayoutOf(const AttentionShape& shape) {
  HeadLayout layout;
  layout.batch = shape.batch;
  layout.seq = shape.seq;
  layout.q_heads = shape.q_heads;
  layout.kv_heads = shape.kv_heads;
  layout.head_dim = shape.head_dim;
  layout.packed_width = shape.packed_width();
  layout.is_mapped = shape.kv_of_head != nullptr;
  if (layout.is_mapped) {
    TY_CHECK_LE(shape.q_heads, kMaxMappedHeads);
    TY_CHECK_LE(shape.kv_heads, 65536);
    for (int64_t head = 0; head < shape.q_heads; ++head) {
      layout.kv_of_head[head] = static_cast<uint16_t>(shape.kv_of_head[head]);
    }
  }
  return layout;
}

inline float DeviceScoreScale(float scale, const AttentionShape& shape) {
  return scale != 0.0f ? scale : 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
}

// Consecutive rows of one head; `rows` of them exist.
template <typename T>
struct HeadTile {
  T* data;
  int64_t stride;
  int64_t rows;
};

// Rows of head `head` of packed rows (q heads, then k heads, then v heads) from token `first`.
template <typename T>
__device__ inline HeadTile<T> PackedTile(const HeadLayout& heads, T* packed, int64_t b, int64_t head, int64_t first) {
  return {packed + (b * heads.seq + first) * heads.packed_width + head * heads.head_dim, heads.packed_width,
          heads.seq - first};
}
// Of o or dout.
template <typename T>
__device__ inline HeadTile<T> OutputTile(const HeadLayout& heads, T* o, int64_t b, int64_t head, int64_t first) {
  const int64_t width = heads.q_heads * heads.head_dim;
  return {o + (b * heads.seq + first) * width + head * heads.head_dim, width, heads.seq - first};
}

// 256 threads; thread (down, across) of 16 x 16 holds elements (down + 16 i, across + 16 j) of a 64 x 64 tile, so that
// the 16 threads of one row are half a warp.
using TileValues = float[4][4];

// Floats of shared memory that the products below use as they like.
inline constexpr int kTileScratch = 2 * kTileDepth * (kTileExtent + 1);

// Adds x y^T over all `width` columns.
template <typename T>
__device__ inline void AddRowProducts(float* scratch, const HeadTile<const T>& x, const HeadTile<const T>& y,
                                      int64_t width, TileValues& sums) {
  float(*x_tile)[kTileExtent + 1] = reinterpret_cast<float(*)[kTileExtent + 1]>(scratch);
  float(*y_tile)[kTileExtent + 1] = x_tile + kTileDepth;
  for (int64_t at = 0; at < width; at += kTileDepth) {
    __syncthreads();  // what was there has been read
    FillTile(x_tile, StridedOperand<T>{x.data, x.stride, 1}, 0, x.rows, at, width);
    FillTile(y_tile, StridedOperand<T>{y.data, y.stride, 1}, 0, y.rows, at, width);
    __syncthreads();
    MultiplyTiles(x_tile, y_tile, sums);
  }
}

// Adds weights * rows, or weights^T * rows, to kCols columns from `first_col` of 64 rows; element (down + 16 i, across
// + 16 c) at sums[i][c]. Waits for the weights to be written.
template <int kCols, bool kTransposed, typename T>
__device__ inline void AddWeightedRows(const float (*weights)[kTileExtent + 1], float* scratch,
                                       const HeadTile<const T>& rows, int64_t first_col, int64_t width,
                                       float (&sums)[4][kCols / 16]) {
  constexpr int kRows = 32;  // at a time
  static_assert(kRows * kCols <= kTileScratch);
  const int thread = static_cast<int>(threadIdx.x);
  const int across = thread % 16;
  const int down = thread / 16;
  for (int first = 0; first < kTileExtent; first += kRows) {
    __syncthreads();
    for (int i = thread; i < kRows * kCols; i += kTileThreads) {
      const int r = first + i / kCols;
      const int64_t c = first_col + i % kCols;
      scratch[i] = r < rows.rows && c < width ? ToFloat(rows.data[r * rows.stride + c]) : 0.0f;
    }
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kRows; ++k) {
      float left[4], right[kCols / 16];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        left[i] = kTransposed ? weights[first + k][down + 16 * i] : weights[down + 16 * i][first + k];
      }
#pragma unroll
      for (int c = 0; c < kCols / 16; ++c) right[c] = scratch[k * kCols + across + 16 * c];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int c = 0; c < kCols / 16; ++c) sums[i][c] = fmaf(left[i], right[c], sums[i][c]);
      }
    }
  }
}

// Row down + 16 i times factors[i], rounded to the storage. The largest magnitude that this thread has stored, as bits
// of a float (largest_magnitude_device.h).
template <int kCols, typename T>
__device__ inline uint32_t StoreTile(const float (&sums)[4][kCols / 16], const float (&factors)[4],
                                     const HeadTile<T>& rows, int64_t first_col, int64_t width) {
  uint32_t largest = 0;
  const int across = static_cast<int>(threadIdx.x) % 16;
  const int down = static_cast<int>(threadIdx.x) / 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int c = 0; c < kCols / 16; ++c) {
      const int r = down + 16 * i;
      const int64_t col = first_col + across + 16 * c;
      if (r >= rows.rows || col >= width) continue;
      const T stored = FromFloat<T>(sums[i][c] * factors[i]);
      rows.data[r * rows.stride + col] = stored;
      largest = LargerMagnitude(stored, largest);
    }
  }
  return largest;
}

// Of the 16 threads of a row; each gets it.
template <typename Combine>
__device__ inline float RowReduce(float value, const Combine& combine) {
  for (int offset = 8; offset > 0; offset /= 2) value = combine(value, __shfl_xor_sync(0xFFFFFFFFu, value, offset));
  return value;
}

}  // namespace trainyard::kernels::internal
