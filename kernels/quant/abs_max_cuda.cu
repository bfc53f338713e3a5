#include "kernels/core/block_reduce.h"
#include "kernels/quant/abs_max_internal.h"
#include "kernels/quant/chunk.h"
#include "kernels/quant/largest_magnitude_device.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;

// The larger of `largest` and the bits of the largest magnitude of the 16 bytes (or what is left) at x[first].
__device__ uint32_t LargestOf(const Floats& x, int64_t first, int64_t count, uint32_t largest) {
  if (x.is_bf16) {
    BFloat16 values[8];
    LoadChunk<8>(static_cast<const BFloat16*>(x.data) + first, count, values);
    TY_UNROLL
    for (int i = 0; i < 8; ++i) {
      const uint32_t magnitude = uint32_t{values[i].bits & 0x7FFFu} << 16;
      largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
  }
  uint32_t bits[4];
  LoadChunk<4>(static_cast<const uint32_t*>(x.data) + first, count, bits);
  TY_UNROLL
  for (int i = 0; i < 4; ++i) {
    const uint32_t magnitude = bits[i] & 0x7FFFFFFF;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

__device__ inline int64_t ChunkOf(const Floats& x) {
  return x.is_bf16 ? 8 : 4;
}

// A maximum of integers: the order in which blocks come does not show.
__global__ void AllKernel(Floats x, int64_t size, uint32_t* y) {
  uint32_t largest = 0;
  const int64_t chunk = ChunkOf(x);
  for (int64_t first = GlobalThread() * chunk; first < size; first += GlobalThreads() * chunk) {
    largest = LargestOf(x, first, size - first, largest);
  }
  RaiseAmax<kThreads>(largest, y);
}

// kRowThreads for each row: a warp, or the block.
template <int kRowThreads>
__global__ void RowsKernel(Floats x, int64_t rows, int64_t cols, uint32_t* y) {
  constexpr int kRows = kThreads / kRowThreads;
  const int64_t chunk = ChunkOf(x);
  const int thread = static_cast<int>(threadIdx.x) % kRowThreads;
  for (int64_t top = int64_t{blockIdx.x} * kRows; top < rows; top += int64_t{gridDim.x} * kRows) {
    const int64_t row = top + threadIdx.x / kRowThreads;
    uint32_t largest = 0;
    for (int64_t c = thread * chunk; row < rows && c < cols; c += kRowThreads * chunk) {
      largest = LargestOf(x, row * cols + c, cols - c, largest);
    }
    if constexpr (kRowThreads == 32) {
      largest = WarpReduce(largest, Max());
    } else {
      largest = BlockReduce<kThreads>(largest, Max());
    }
    if (thread == 0 && row < rows) y[row] = largest;
  }
}

}  // namespace

void AbsMaxCuda(const AbsMaxArgs& args, Stream& stream) {
  auto* const y = reinterpret_cast<uint32_t*>(args.y.as<float>());
  const int64_t size = args.x.size();
  if (args.y.size() == 1) {
    StartAmax(args.y, stream);
    if (size == 0) return;
    const int64_t chunk = args.x.dtype() == DType::kBF16 ? 8 : 4;
    Launch(stream, ElementwiseGrid(size, chunk), AllKernel, Floats(args.x), size, y);
    return;
  }
  const int64_t rows = args.x.dim(0);
  const int64_t cols = args.x.dim(1);
  if (rows == 0) return;
  constexpr int64_t kLongRow = 2048;
  if (cols < kLongRow) {
    Launch(stream, RowGrid((rows + 7) / 8, kThreads), RowsKernel<32>, Floats(args.x), rows, cols, y);
  } else {
    Launch(stream, RowGrid(rows, kThreads), RowsKernel<kThreads>, Floats(args.x), rows, cols, y);
  }
}

}  // namespace trainyard::kernels::internal
