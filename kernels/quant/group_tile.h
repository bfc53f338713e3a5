// For <op>_cuda.cu of formats with a scale for kGroup neighbouring elements: one thread a group, so that a group's sums
// run as in the formula headers. Memory is read and written by neighbouring threads side by side; a tile in shared
// memory, its rows one float longer than a group so that columns lie in different banks, turns one order into the
// other.
#pragma once

#include "kernels/quant/chunk.h"

namespace trainyard::kernels::internal {

inline constexpr int kTileGroups = 128;  // and threads a block

template <int kGroup>
inline constexpr int kTileFloats = kTileGroups*(kGroup + 1);

// The row of this thread's group.
template <int kGroup>
__device__ inline float* TileRow(float* tile) {
  return tile + threadIdx.x * (kGroup + 1);
}

// `place(group)`: the first element of a group of the tile, negative if there is no such group. Ends with all there.
template <int kGroup, typename Place>
__device__ inline void LoadTile(const Floats& x, const Place& place, float* tile) {
  for (int at = 4 * static_cast<int>(threadIdx.x); at < kTileGroups * kGroup; at += 4 * kTileGroups) {
    const int64_t first = place(at / kGroup);
    float four[4] = {};
    if (first >= 0) Load<4>(x, first + at % kGroup, 4, four);
    float* row = tile + at / kGroup * (kGroup + 1) + at % kGroup;
    TY_UNROLL
    for (int i = 0; i < 4; ++i) row[i] = four[i];
  }
  __syncthreads();
}

// Begins when all threads have written their rows.
template <int kGroup, typename Place>
__device__ inline void StoreTile(const float* tile, const Place& place, const Floats& y) {
  __syncthreads();
  for (int at = 4 * static_cast<int>(threadIdx.x); at < kTileGroups * kGroup; at += 4 * kTileGroups) {
    const int64_t first = place(at / kGroup);
    const float* row = tile + at / kGroup * (kGroup + 1) + at % kGroup;
    const float four[4] = {row[0], row[1], row[2], row[3]};
    if (first >= 0) Store<4>(four, y, first + at % kGroup, 4);
  }
}

inline Grid TileGrid(int64_t tiles) {
  constexpr int64_t kMaxBlocks = 132 * 16;
  return {.blocks = tiles < 1 ? 1 : tiles > kMaxBlocks ? kMaxBlocks : tiles, .threads = kTileGroups};
}

}  // namespace trainyard::kernels::internal
