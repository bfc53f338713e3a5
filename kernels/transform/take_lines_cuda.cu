#include <algorithm>

#include "kernels/core/dispatch.h"
#include "kernels/core/launch.h"
#include "kernels/core/vec.h"
#include "kernels/transform/take_lines.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 132 * 32;  // of 256 threads: as many as any GPU holds

// Blocks of a row share its elements: blockIdx.y.
template <typename T>
__global__ void TakeRowsKernel(const T* x, const int32_t* indices, int64_t taken, int64_t cols, bool is_aligned, T* y) {
  constexpr int kValues = kVecWidth<T>;
  const int64_t thread = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  const int64_t threads = int64_t{gridDim.y} * blockDim.x;
  for (int64_t q = blockIdx.x; q < taken; q += gridDim.x) {
    const int64_t row = indices[q];
    const T* from = x + (row < 0 ? 0 : row) * cols;
    T* to = y + q * cols;
    if (is_aligned) {  // every row of both, and rows are whole vectors
      for (int64_t c = thread * kValues; c < cols; c += threads * kValues) {
        StoreVec(to + c, row < 0 ? Vec<T, kValues>{} : LoadVec<kValues>(from + c));
      }
    } else {
      for (int64_t c = thread; c < cols; c += threads) to[c] = row < 0 ? T{} : from[c];
    }
  }
}

template <typename T>
__global__ void TakeColumnsKernel(const T* x, const int32_t* indices, int64_t taken, int64_t rows, int64_t cols, T* y) {
  const int64_t threads = int64_t{gridDim.y} * blockDim.x;
  for (int64_t q = int64_t{blockIdx.y} * blockDim.x + threadIdx.x; q < taken; q += threads) {
    const int64_t column = indices[q];
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
      y[r * taken + q] = column < 0 ? T{} : x[r * cols + column];
    }
  }
}

// One thread for each of `items` along a line where that is few.
Grid LinesGrid(int64_t lines, int64_t items) {
  Grid grid;
  grid.threads = static_cast<int>(std::clamp<int64_t>((items + 31) / 32 * 32, 32, kThreads));
  grid.blocks_y = std::clamp<int64_t>((items + kThreads - 1) / kThreads, 1, 64);
  grid.blocks = std::clamp<int64_t>(lines, 1, kMaxBlocks * kThreads / grid.threads);
  return grid;
}

}  // namespace

void TakeLinesCuda(const TakeLinesArgs& args, Stream& stream) {
  if (args.y.size() == 0) return;
  const int32_t* indices = args.indices.as<int32_t>();
  const int64_t rows = args.x.dim(0);
  const int64_t cols = args.x.dim(1);
  const int64_t taken = args.indices.size();
  DispatchFloat(args.x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (args.axis == 0) {
      constexpr int kValues = kVecWidth<T>;
      const bool is_aligned = AllVecAligned(args.x.data(), args.y.data()) && cols % kValues == 0;
      Launch(stream, LinesGrid(taken, is_aligned ? cols / kValues : cols), TakeRowsKernel<T>, args.x.as<T>(), indices,
             taken, cols, is_aligned, args.y.as<T>());
    } else {
      Launch(stream, LinesGrid(rows, taken), TakeColumnsKernel<T>, args.x.as<T>(), indices, taken, rows, cols,
             args.y.as<T>());
    }
  });
}

}  // namespace trainyard::kernels::internal
