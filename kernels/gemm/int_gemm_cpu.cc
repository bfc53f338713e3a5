#include <algorithm>
#include <cstring>

#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/gemm/int_gemm_internal.h"

namespace trainyard::kernels::internal {
namespace {

// One task is a tile of c, over the depth in steps whose operands fit the second-level cache: both are expanded to
// units on the thread's stack. A tile is tall, because the columns are put in order anew for every tile.
constexpr int64_t kTileRows = 256;
constexpr int64_t kTileColumns = 128;
constexpr int64_t kDepthStep = 512;
constexpr int64_t kMaxUnits = kDepthStep / 2;
constexpr int64_t kMaxTileColumns = 32;  // of any kernel

// Halves of bytes as signed bytes. Written for vectors: it is done anew for every tile.
void UnpackHalves(const uint8_t* packed, int64_t count, uint8_t* codes) {
  using Bytes = uint8_t __attribute__((vector_size(16)));
  constexpr int64_t kCodes = 2 * sizeof(Bytes);
  int64_t k = 0;
  for (; k + kCodes <= count; k += kCodes) {
    Bytes both;
    __builtin_memcpy(&both, packed + k / 2, sizeof(both));
    const Bytes even = ((both & 15) ^ 8) - 8;
    const Bytes odd = ((both >> 4) ^ 8) - 8;
    const Bytes first = __builtin_shufflevector(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const Bytes second =
        __builtin_shufflevector(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    __builtin_memcpy(codes + k, &first, sizeof(first));
    __builtin_memcpy(codes + k + sizeof(first), &second, sizeof(second));
  }
  for (; k < count; ++k) {
    const int half = k % 2 == 0 ? packed[k / 2] & 15 : packed[k / 2] >> 4;
    codes[k] = static_cast<uint8_t>((half ^ 8) - 8);
  }
}

// `count` codes of a row from column `first`, which is even, as bytes; `buffer` holds kDepthStep.
const uint8_t* RowCodes(const IntCodes& codes, int64_t row, int64_t first, int64_t count, uint8_t* buffer) {
  const uint8_t* stored = codes.codes.as<uint8_t>() + row * codes.codes.dim(1);
  if (!codes.packed) return stored + first;
  UnpackHalves(stored + first / 2, count, buffer);
  return buffer;
}

// panel[u * columns + j] = rows[j * stride + u].
TY_SIMD void Interleave(const int32_t* rows, int64_t stride, int64_t units, int64_t columns, int32_t* panel) {
  constexpr int64_t kBlock = 8;
  for (int64_t u = 0; u < units; u += kBlock) {
    const int64_t block = std::min(kBlock, units - u);
    for (int64_t j = 0; j < columns; j += kBlock) {
      for (int64_t v = 0; v < block; ++v) {
        for (int64_t i = 0; i < kBlock; ++i) panel[(u + v) * columns + j + i] = rows[(j + i) * stride + u + v];
      }
    }
  }
}

struct Task {
  alignas(64) int32_t sums[kTileRows * kTileColumns];
  alignas(64) int32_t left[kTileRows * kMaxUnits];
  alignas(64) int32_t right[kMaxTileColumns * kMaxUnits];
  alignas(64) int32_t panel[kMaxTileColumns * kMaxUnits];
  int32_t starts[kTileRows];
  uint8_t unpacked[kDepthStep];
};

// The products of rows row .. row + rows - 1 of a with rows col .. col + cols - 1 of b into task.sums, a row every
// kTileColumns.
void ComputeTile(const IntKernel& kernel, const IntGemmArgs& args, int64_t row, int64_t rows, int64_t col, int64_t cols,
                 Task& task) {
  std::memset(task.sums, 0, static_cast<size_t>(rows * kTileColumns) * sizeof(int32_t));
  const int64_t stride = kDepthStep / kernel.unit_codes;
  for (int64_t first = 0; first < args.depth; first += kDepthStep) {
    const int64_t count = std::min(kDepthStep, args.depth - first);
    const int64_t units = (count + kernel.unit_codes - 1) / kernel.unit_codes;
    for (int64_t i = 0; i < rows; ++i) {
      int32_t* out = task.left + i * stride;
      out[units - 1] = 0;  // the last unit may hold fewer codes
      task.starts[i] = kernel.expand_left(RowCodes(args.a, row + i, first, count, task.unpacked), count, out);
    }
    for (int64_t c = 0; c < cols; c += kernel.tile_columns) {
      const int64_t present = std::min(kernel.tile_columns, cols - c);
      for (int64_t j = 0; j < kernel.tile_columns; ++j) {
        int32_t* out = task.right + j * stride;
        if (j < present) {
          out[units - 1] = 0;
          kernel.expand_right(RowCodes(args.b, col + c + j, first, count, task.unpacked), count, out);
        } else {
          std::memset(out, 0, static_cast<size_t>(units) * sizeof(int32_t));
        }
      }
      Interleave(task.right, stride, units, kernel.tile_columns, task.panel);
      for (int64_t i = 0; i < rows; i += kernel.tile_rows) {
        kernel.multiply(task.left + i * stride, stride, task.starts + i, std::min(kernel.tile_rows, rows - i),
                        task.panel, units, task.sums + i * kTileColumns + c, kTileColumns);
      }
    }
  }
}

// Equal parts of at most `limit`, multiples of `unit`.
int64_t TileExtent(int64_t extent, int64_t limit, int64_t unit) {
  const int64_t parts = (extent + limit - 1) / limit;
  const int64_t part = (extent + parts - 1) / std::max<int64_t>(parts, 1);
  return std::max<int64_t>((part + unit - 1) / unit * unit, unit);
}

// Calls finish(sums, row, rows, col, cols) for every tile of the product.
template <typename Finish>
void ForTiles(const IntKernel& kernel, const IntGemmArgs& args, Stream& stream, const Finish& finish) {
  const int64_t m = args.a.codes.dim(0);
  const int64_t n = args.b.codes.dim(0);
  if (m == 0 || n == 0) return;
  const int64_t tile_rows = TileExtent(m, kTileRows, 8);
  const int64_t tile_cols = TileExtent(n, kTileColumns, kMaxTileColumns);
  const int64_t across = (n + tile_cols - 1) / tile_cols;
  const int64_t tiles = (m + tile_rows - 1) / tile_rows * across;
  stream.pool().ParallelFor(tiles, 1, [&](int64_t begin, int64_t end) {
    Task task;
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t row = tile / across * tile_rows;
      const int64_t col = tile % across * tile_cols;
      const int64_t rows = std::min(tile_rows, m - row);
      const int64_t cols = std::min(tile_cols, n - col);
      ComputeTile(kernel, args, row, rows, col, cols, task);
      finish(task.sums, row, rows, col, cols);
    }
  });
}

TY_SIMD void GridRow(const int32_t* sums, const int32_t* b_sums, const float* b_steps, double row_term, float a_step,
                     int64_t count, float* y) {
  for (int64_t j = 0; j < count; ++j) y[j] = GridValue(sums[j], row_term, a_step, b_sums[j], b_steps[j]);
}
TY_SIMD void AddBias(const float* bias, int64_t count, float* y) {
  for (int64_t j = 0; j < count; ++j) y[j] += bias[j];
}
TY_SIMD void AddBias(const BFloat16* bias, int64_t count, float* y) {
  for (int64_t j = 0; j < count; ++j) y[j] += ToFloat(bias[j]);
}
TY_SIMD void Round(const float* x, int64_t count, BFloat16* y) {
  for (int64_t j = 0; j < count; ++j) y[j] = FromFloat<BFloat16>(x[j]);
}

TY_SIMD int32_t SumOfCodes(const uint8_t* codes, int64_t count) {
  int32_t sum = 0;
  for (int64_t k = 0; k < count; ++k) sum += static_cast<int8_t>(codes[k]);
  return sum;
}

}  // namespace

void IntGemmWith(const IntKernel& kernel, const IntGemmArgs& args, Stream& stream) {
  int32_t* c = args.c.as<int32_t>();
  const int64_t n = args.c.dim(1);
  ForTiles(kernel, args, stream, [&](const int32_t* sums, int64_t row, int64_t rows, int64_t col, int64_t cols) {
    for (int64_t i = 0; i < rows; ++i) {
      std::memcpy(c + (row + i) * n + col, sums + i * kTileColumns, static_cast<size_t>(cols) * sizeof(int32_t));
    }
  });
}

void IntGemmCpu(const IntGemmArgs& args, Stream& stream) {
  IntGemmWith(FastestIntKernel(args.b), args, stream);
}

void CodeRowSumsCpu(const CodeRowSumsArgs& args, Stream& stream) {
  int32_t* sums = args.sums.as<int32_t>();
  stream.pool().ParallelFor(args.sums.size(), 16, [&](int64_t begin, int64_t end) {
    uint8_t unpacked[kDepthStep];
    for (int64_t row = begin; row < end; ++row) {
      sums[row] = 0;
      for (int64_t first = 0; first < args.depth; first += kDepthStep) {
        const int64_t count = std::min(kDepthStep, args.depth - first);
        sums[row] += SumOfCodes(RowCodes(args.a, row, first, count, unpacked), count);
      }
    }
  });
}

void IntGridLinearCpu(const IntGridLinearArgs& args, Stream& stream) {
  const int64_t n = args.y.dim(1);
  const float* a_steps = args.a_steps.as<float>();
  const int32_t* a_sums = args.a_sums.as<int32_t>();
  const float* b_steps = args.b_steps.as<float>();
  const int32_t* b_sums = args.b_sums.as<int32_t>();
  const IntGemmArgs product = {.a = args.a, .b = args.b, .depth = args.depth, .c = {}};
  ForTiles(FastestIntKernel(args.b), product, stream,
           [&](const int32_t* sums, int64_t row, int64_t rows, int64_t col, int64_t cols) {
             float buffer[kTileColumns];
             for (int64_t i = 0; i < rows; ++i) {
               const int32_t* row_sums = sums + i * kTileColumns;
               const double row_term = GridRowTerm(a_sums[row + i], args.depth);
               const int64_t at = (row + i) * n + col;
               const bool is_f32 = args.y.dtype() == DType::kF32;
               float* const y = is_f32 ? args.y.as<float>() + at : buffer;
               GridRow(row_sums, b_sums + col, b_steps + col, row_term, a_steps[row + i], cols, y);
               if (args.bias && args.bias.dtype() == DType::kF32) AddBias(args.bias.as<float>() + col, cols, y);
               if (args.bias && args.bias.dtype() == DType::kBF16) AddBias(args.bias.as<BFloat16>() + col, cols, y);
               if (!is_f32) Round(y, cols, args.y.as<BFloat16>() + at);
             }
           });
}

}  // namespace trainyard::kernels::internal
