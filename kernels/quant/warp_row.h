// For <op>_cuda.cu that takes rows of a matrix, rotated or not: one warp a row, kTileColumns * kParts columns at a
// time, eight neighbouring columns a lane in each part. Bit for bit the floats of the CPU's LoadFloats and
// RotateFloats.
#pragma once

#include <cmath>

#include "kernels/quant/chunk.h"

namespace trainyard::kernels::internal {

inline constexpr int kLaneColumns = 8;
inline constexpr int kTileColumns = 32 * kLaneColumns;
inline constexpr int kRowWarps = 4;  // of a block

inline Grid WarpRowGrid(int64_t rows) {
  return RowGrid((rows + kRowWarps - 1) / kRowWarps, 32 * kRowWarps);
}
__device__ inline int Lane() {
  return static_cast<int>(threadIdx.x % 32);
}
// The rows of a warp: for (r = FirstWarpRow(); r < rows; r += WarpRowStride()).
__device__ inline int64_t FirstWarpRow() {
  return int64_t{blockIdx.x} * kRowWarps + threadIdx.x / 32;
}
__device__ inline int64_t WarpRowStride() {
  return int64_t{gridDim.x} * kRowWarps;
}

// A matrix whose rows are multiplied by H in groups of `group` columns; 0: not at all.
struct RotatedRows {
  Floats x;
  int64_t cols = 0;
  int64_t group = 0;
  float scale = 1;  // group^-1/2

  RotatedRows(const TensorView& x, int64_t group)
      : x(x),
        cols(x.dim(1)),
        group(group),
        scale(group == 0 ? 1.0f : static_cast<float>(1.0 / std::sqrt(static_cast<double>(group)))) {}
};

// The parts that a group needs: a tile ends where a group does.
inline int TileParts(int64_t group) {
  return group <= kTileColumns ? 1 : static_cast<int>(group / kTileColumns);
}

// One column of butterflies between two registers.
__device__ inline void Butterfly(float& a, float& b) {
  const float sum = a + b;
  b = a - b;
  a = sum;
}

// The butterflies of distance 1, 2, 4 ... group / 2, in this order, then the scale. All lanes must call.
template <int kParts>
__device__ inline void RotateTile(int64_t group, float scale, float (*v)[kLaneColumns]) {
  const int lane = Lane();
  TY_UNROLL
  for (int part = 0; part < kParts; ++part) {
    TY_UNROLL
    for (int i = 0; i < 8; i += 2) Butterfly(v[part][i], v[part][i + 1]);
    TY_UNROLL
    for (int i = 0; i < 8; i += 4) {
      Butterfly(v[part][i], v[part][i + 2]);
      Butterfly(v[part][i + 1], v[part][i + 3]);
    }
    TY_UNROLL
    for (int i = 0; i < 4; ++i) Butterfly(v[part][i], v[part][i + 4]);
    for (int distance = 1; distance < 32 && distance * kLaneColumns < group; distance *= 2) {
      TY_UNROLL
      for (int i = 0; i < kLaneColumns; ++i) {
        const float other = __shfl_xor_sync(0xFFFFFFFFu, v[part][i], distance);
        v[part][i] = (lane & distance) != 0 ? other - v[part][i] : v[part][i] + other;
      }
    }
  }
  if constexpr (kParts >= 2) {
    TY_UNROLL
    for (int part = 0; part < kParts; part += 2) {
      TY_UNROLL
      for (int i = 0; i < kLaneColumns; ++i) Butterfly(v[part][i], v[part + 1][i]);
    }
  }
  if constexpr (kParts == 4) {
    TY_UNROLL
    for (int part = 0; part < 2; ++part) {
      TY_UNROLL
      for (int i = 0; i < kLaneColumns; ++i) Butterfly(v[part][i], v[part + 2][i]);
    }
  }
  TY_UNROLL
  for (int part = 0; part < kParts; ++part) {
    TY_UNROLL
    for (int i = 0; i < kLaneColumns; ++i) v[part][i] *= scale;
  }
}

// The tile of row `row` that begins at column `first`, zeros behind the row's end. All lanes must call.
template <int kParts>
__device__ inline void LoadRotatedTile(const RotatedRows& rows, int64_t row, int64_t first, float (*v)[kLaneColumns]) {
  TY_UNROLL
  for (int part = 0; part < kParts; ++part) {
    const int64_t column = first + part * kTileColumns + Lane() * kLaneColumns;
    Load<kLaneColumns>(rows.x, row * rows.cols + column, rows.cols - column, v[part]);
  }
  if (rows.group != 0) RotateTile<kParts>(rows.group, rows.scale, v);
}

}  // namespace trainyard::kernels::internal
