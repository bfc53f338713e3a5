#include <algorithm>

#include "kernels/core/dispatch.h"
#include "kernels/core/launch.h"
#include "kernels/transform/eight.h"
#include "kernels/transform/hadamard_device.h"
#include "kernels/transform/transpose_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;
constexpr int kTileCols = 64;

struct Shape {
  int64_t rows = 0, cols = 0;
  int group = 0;
  float scale = 1;
  const float* signs = nullptr;
  int64_t period = 1;
  bool x_is_aligned = false, y_is_aligned = false;  // every row of it
};

// Tiles of kRows rows of x by kTileCols columns go through shared memory as floats. On both ways a thread moves eight
// neighbours: of a row of x, and of a row of y. A row of the tile is one float longer than its columns, and each 32
// rows are moved on a little more, so that the lanes of a warp, which read eight rows apart, meet different banks.
template <int kRows>
struct Tile {
  static constexpr int kSkew = 256 / kRows;
  static constexpr int kFloats = kRows * (kTileCols + 1) + kRows / 32 * kSkew;
  __device__ static int At(int row, int col) { return row * (kTileCols + 1) + row / 32 * kSkew + col; }
};

template <int kRows, typename X>
__device__ inline void LoadTile(const X* x, const Shape& shape, int64_t row, int64_t col, float* tile) {
  constexpr int kChunksARow = kTileCols / kEight;
  for (int i = threadIdx.x; i < kRows * kChunksARow; i += kThreads) {
    const int r = i / kChunksARow;
    const int c = i % kChunksARow * kEight;
    const int64_t left = row + r < shape.rows ? shape.cols - (col + c) : 0;
    const X* from = x + (row + r) * shape.cols + col + c;
    float v[kEight] = {};
    if (left >= kEight) {
      LoadEight(from, shape.x_is_aligned, v);
    } else {
      TY_UNROLL
      for (int k = 0; k < kEight; ++k) v[k] = k < left ? ToFloat(from[k]) : 0.0f;
    }
    if (shape.signs != nullptr && left > 0) {
      const float sign = shape.signs[(row + r) % shape.period];
      TY_UNROLL
      for (int k = 0; k < kEight; ++k) v[k] *= sign;
    }
    TY_UNROLL
    for (int k = 0; k < kEight; ++k) tile[Tile<kRows>::At(r, c + k)] = v[k];
  }
}

template <int kRows, typename X, typename Y>
__global__ void TransposeKernel(const X* x, Y* y, Shape shape) {
  __shared__ float tile[Tile<kRows>::kFloats];
  constexpr int kChunksACol = kRows / kEight;
  const int64_t down = (shape.rows + kRows - 1) / kRows;
  const int64_t tiles = down * ((shape.cols + kTileCols - 1) / kTileCols);
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    // Tiles one below the other are neighbours: together they write whole rows of y.
    const int64_t row = t % down * kRows;
    const int64_t col = t / down * kTileCols;
    __syncthreads();  // the last tile has been read
    LoadTile<kRows>(x, shape, row, col, tile);
    __syncthreads();
    for (int i = threadIdx.x; i < kTileCols * kChunksACol; i += kThreads) {  // all lanes of a warp, or none
      const int c = i / kChunksACol;
      const int r = i % kChunksACol * kEight;
      float v[kEight];
      TY_UNROLL
      for (int k = 0; k < kEight; ++k) v[k] = tile[Tile<kRows>::At(r + k, c)];
      if (shape.group != 0) {
        HadamardInWarp(shape.group, v);
        TY_UNROLL
        for (int k = 0; k < kEight; ++k) v[k] *= shape.scale;
      }
      const int64_t left = col + c < shape.cols ? shape.rows - (row + r) : 0;
      Y* to = y + (col + c) * shape.rows + row + r;
      if (left >= kEight) {
        StoreEight(v, shape.y_is_aligned, to);
      } else {
        TY_UNROLL
        for (int k = 0; k < kEight; ++k) {
          if (k < left) to[k] = FromFloat<Y>(v[k]);
        }
      }
    }
  }
}

template <int kRows, typename X, typename Y>
void LaunchTranspose(const TransposeArgs& args, const Shape& shape, Stream& stream) {
  const int64_t tiles = (shape.rows + kRows - 1) / kRows * ((shape.cols + kTileCols - 1) / kTileCols);
  Launch(stream, RowGrid(tiles, kThreads), TransposeKernel<kRows, X, Y>, args.x.as<X>(), args.y.as<Y>(), shape);
}

}  // namespace

void TransposeCuda(const TransposeArgs& args, Stream& stream) {
  if (args.x.size() == 0) return;
  Shape shape;
  shape.rows = args.x.dim(0);
  shape.cols = args.x.dim(1);
  shape.group = static_cast<int>(args.group);
  if (args.group != 0) shape.scale = HadamardScale(args.group);
  if (args.signs) {
    shape.signs = args.signs.as<float>();
    shape.period = args.signs.size();
  }
  const auto rows_are_aligned = [](const TensorView& m) {
    return AllVecAligned(m.data()) && m.dim(1) * static_cast<int64_t>(SizeOf(m.dtype())) % 16 == 0;
  };
  shape.x_is_aligned = rows_are_aligned(args.x);
  shape.y_is_aligned = rows_are_aligned(args.y);
  DispatchFloat(args.x.dtype(), [&](auto x_tag) {
    DispatchFloat(args.y.dtype(), [&](auto y_tag) {
      using X = typename decltype(x_tag)::type;
      using Y = typename decltype(y_tag)::type;
      if (args.group == kMaxTransposeGroup) {
        LaunchTranspose<static_cast<int>(kMaxTransposeGroup), X, Y>(args, shape, stream);
      } else {
        LaunchTranspose<64, X, Y>(args, shape, stream);
      }
    });
  });
}

}  // namespace trainyard::kernels::internal
