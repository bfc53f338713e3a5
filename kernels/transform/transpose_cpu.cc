#include <algorithm>
#include <cmath>

#include "kernels/core/dispatch.h"
#include "kernels/transform/transpose_internal.h"
#include "kernels/transform/vector8.h"

namespace trainyard::kernels::internal {
namespace {

// A tile of x in the first-level cache: one group of rows, or as many without, by whole cache lines of columns.
constexpr int64_t kTileRows = kMaxTransposeGroup;
constexpr int64_t kTileCols = 32;
constexpr int64_t kPlainRows = 64;

struct Tile {
  int64_t row, col, rows, cols;
};

// tile[r][c] = sign of the row * x; what is missing in the last rows of 8 and columns is 0.
template <typename X>
TY_INLINE void LoadTile(const X* x, int64_t stride, const Tile& at, const float* signs, float* tile) {
  const int64_t padded = (at.rows + kVectorLanes - 1) / kVectorLanes * kVectorLanes;
  for (int64_t r = 0; r < padded; ++r) {
    float* to = tile + r * kTileCols;
    if (r >= at.rows) {
      for (int64_t c = 0; c < kTileCols; ++c) to[c] = 0;
      continue;
    }
    const X* from = x + (at.row + r) * stride + at.col;
    const float sign = signs == nullptr ? 1.0f : signs[r];
    if (at.cols == kTileCols) {
#pragma GCC unroll 4
      for (int64_t c = 0; c < kTileCols; c += kVectorLanes) Store8(Load8(from + c) * sign, to + c);
    } else {
      for (int64_t c = 0; c < kTileCols; ++c) to[c] = c < at.cols ? ToFloat(from[c]) * sign : 0.0f;
    }
  }
}

// The butterflies of distances `distance`, 2 distance, .. (kRadix of them combine) over rows first + i distance.
template <int kRadix>
TY_INLINE void Butterflies(float* rows, int64_t distance) {
  Vector8 v[kRadix];
#pragma GCC unroll 8
  for (int i = 0; i < kRadix; ++i) v[i] = Load8(rows + i * distance * kTileCols);
#pragma GCC unroll 3
  for (int half = 1; half < kRadix; half *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kRadix; ++i) {
      if ((i & half) != 0) continue;
      const Vector8 a = v[i];
      const Vector8 b = v[i + half];
      v[i] = a + b;
      v[i + half] = a - b;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRadix; ++i) Store8(v[i], rows + i * distance * kTileCols);
}

template <int kRadix>
TY_INLINE void ButterflyPass(float* tile, int64_t group, int64_t distance) {
  for (int64_t first = 0; first < group; first += kRadix * distance) {
    for (int64_t r = first; r < first + distance; ++r) {
      for (int64_t c = 0; c < kTileCols; c += kVectorLanes) Butterflies<kRadix>(tile + r * kTileCols + c, distance);
    }
  }
}

// H over the rows of the tile, but for its scale: distances 1, 2, 4, then 8 and on, the order of hadamard_cpu.cc.
TY_INLINE void TransformRows(float* tile, int64_t group) {
  ButterflyPass<8>(tile, group, 1);
  switch (group) {
    case 16:
      return ButterflyPass<2>(tile, group, 8);
    case 32:
      return ButterflyPass<4>(tile, group, 8);
    case 64:
      return ButterflyPass<8>(tile, group, 8);
    default:
      ButterflyPass<8>(tile, group, 8);
      ButterflyPass<2>(tile, group, 64);
  }
}

// y[c][r] = scale * tile[r][c].
template <typename Y>
TY_INLINE void StoreTile(const float* tile, const Tile& at, float scale, Y* y, int64_t stride) {
  for (int64_t c = 0; c < at.cols; c += kVectorLanes) {
    const int64_t lines = std::min(kVectorLanes, at.cols - c);
    for (int64_t r = 0; r < at.rows; r += kVectorLanes) {
      Vector8 v[kVectorLanes];
#pragma GCC unroll 8
      for (int i = 0; i < kVectorLanes; ++i) v[i] = Load8(tile + (r + i) * kTileCols + c);
      Transpose8(v);
      Y* to = y + (at.col + c) * stride + at.row + r;
      if (lines == kVectorLanes && r + kVectorLanes <= at.rows) {
#pragma GCC unroll 8
        for (int i = 0; i < kVectorLanes; ++i) Store8(v[i] * scale, to + i * stride);
        continue;
      }
      for (int64_t line = 0; line < lines; ++line) {
        Y buffer[kVectorLanes];
        Store8(v[line] * scale, buffer);
        std::copy_n(buffer, std::min(kVectorLanes, at.rows - r), to + line * stride);
      }
    }
  }
}

template <typename X, typename Y>
void TransposeTiles(const TransposeArgs& args, Stream& stream) {
  const int64_t rows = args.x.dim(0);
  const int64_t cols = args.x.dim(1);
  const int64_t tile_rows = args.group == 0 ? kPlainRows : args.group;
  const int64_t down = (rows + tile_rows - 1) / tile_rows;
  const int64_t across = (cols + kTileCols - 1) / kTileCols;
  const float scale = args.group == 0 ? 1.0f : static_cast<float>(1.0 / std::sqrt(static_cast<double>(args.group)));
  // Tiles one below the other are neighbours, so that what one writes of a cache line the next completes.
  stream.pool().ParallelFor(across * down, std::max<int64_t>(down, 1), [&](int64_t begin, int64_t end) {
    alignas(64) float tile[kTileRows * kTileCols];
    for (int64_t i = begin; i < end; ++i) {
      Tile at{i % down * tile_rows, i / down * kTileCols, 0, 0};
      at.rows = std::min(tile_rows, rows - at.row);
      at.cols = std::min(kTileCols, cols - at.col);
      const float* signs = args.signs ? args.signs.as<float>() + at.row % args.signs.size() : nullptr;
      LoadTile(args.x.as<X>(), cols, at, signs, tile);
      if (args.group != 0) TransformRows(tile, args.group);
      StoreTile(tile, at, scale, args.y.as<Y>(), rows);
    }
  });
}

}  // namespace

void TransposeCpu(const TransposeArgs& args, Stream& stream) {
  DispatchFloat(args.x.dtype(), [&](auto x_tag) {
    DispatchFloat(args.y.dtype(), [&](auto y_tag) {
      TransposeTiles<typename decltype(x_tag)::type, typename decltype(y_tag)::type>(args, stream);
    });
  });
}

}  // namespace trainyard::kernels::internal
