#include "kernels/core/block_reduce.h"
#include "kernels/core/launch.h"
#include "kernels/quant/chunk.h"
#include "kernels/quant/fp8_quantize_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kChunk = 4;

struct QuantizePlan {
  Floats x;
  const float* amax;
  float target;
  Rounding rounding;
  PhiloxKey random;
  float* inverse;  // null: not here
  Floats values;
  int64_t scales, span;  // elements of one scale
};

template <typename Y>
__device__ inline void Round(const QuantizePlan& plan, const float* values, int64_t first, Y* rounded) {
  if (plan.rounding == Rounding::kNearestEven) {
    TY_UNROLL
    for (int i = 0; i < kChunk; ++i) rounded[i] = RoundNearest<Y>(values[i], Overflow::kSaturate);
    return;
  }
  uint32_t words[kChunk];
  FourWords(plan.random, first, words);
  TY_UNROLL
  for (int i = 0; i < kChunk; ++i) rounded[i] = RoundStochastic<Y>(values[i], words[i], Overflow::kSaturate);
}

// Codes of the `count` elements from `first`, of which at most a chunk; writes their values where those are wanted.
template <typename Y>
__device__ inline void QuantizeChunk(const QuantizePlan& plan, float scale, int64_t first, int64_t count,
                                     Y (&rounded)[kChunk]) {
  float values[kChunk];
  Load<kChunk>(plan.x, first, count, values);
  TY_UNROLL
  for (int i = 0; i < kChunk; ++i) values[i] *= scale;
  Round(plan, values, first, rounded);
  if (plan.values.data == nullptr) return;
  TY_UNROLL
  for (int i = 0; i < kChunk; ++i) values[i] = WidenToFloat(rounded[i]);
  Store<kChunk>(values, plan.values, first, count);
}

template <typename Y>
__global__ void QuantizeKernel(QuantizePlan plan, Y* codes) {
  for (int64_t row = blockIdx.y; row < plan.scales; row += gridDim.y) {
    const float amax = Fp8UsedAmax(plan.amax[row]);
    const float scale = plan.target / amax;
    if (plan.inverse != nullptr) {
      // `inverse` may be `amax`, but then no other block reads this row's.
      __syncthreads();
      if (blockIdx.x == 0 && threadIdx.x == 0) plan.inverse[row] = amax / plan.target;
    }
    for (int64_t column = GlobalThread() * kChunk; column < plan.span; column += GlobalThreads() * kChunk) {
      const int64_t first = row * plan.span + column;
      const int64_t count = plan.span - column;
      Y rounded[kChunk];
      QuantizeChunk(plan, scale, first, count, rounded);
      StoreChunk<kChunk>(rounded, count, codes + first);
    }
  }
}

// Squares of 64 x 64, turned in shared memory, whose rows lie 17 words apart: neighbouring threads write neighbouring
// codes both ways. A thread has four codes of a row, then four of a column.
constexpr int kSquare = 64;
constexpr int kSquareThreads = 256;
constexpr int kSquareSteps = kSquare * kSquare / kChunk / kSquareThreads;

template <typename Y>
__global__ void __launch_bounds__(kSquareThreads)
    QuantizeAndTransposeKernel(QuantizePlan plan, Y* codes, Y* transposed, int64_t rows, int64_t cols) {
  __shared__ Y square[kSquare][kSquare + 4];
  constexpr int kAcross = kSquare / kChunk;
  const int64_t across = (cols + kSquare - 1) / kSquare;
  const int64_t squares = (rows + kSquare - 1) / kSquare * across;
  for (int64_t s = blockIdx.x; s < squares; s += gridDim.x) {
    const int64_t top = s / across * kSquare;
    const int64_t left = s % across * kSquare;
    __syncthreads();  // the last square has been read
    TY_UNROLL
    for (int step = 0; step < kSquareSteps; ++step) {
      const int item = step * kSquareThreads + static_cast<int>(threadIdx.x);
      const int r = item / kAcross;
      const int c = item % kAcross * kChunk;
      const int64_t row = top + r;
      const int64_t count = cols - left - c;
      if (row >= rows || count <= 0) continue;
      const int64_t scale_of_row = plan.scales == 1 ? 0 : row;
      const float amax = Fp8UsedAmax(plan.amax[scale_of_row]);
      const float scale = plan.target / amax;
      const bool is_first = plan.scales == 1 ? row == 0 : true;
      if (plan.inverse != nullptr && is_first && left + c == 0) plan.inverse[scale_of_row] = amax / plan.target;
      const int64_t first = row * cols + left + c;
      Y rounded[kChunk];
      QuantizeChunk(plan, scale, first, count, rounded);
      TY_UNROLL
      for (int i = 0; i < kChunk; ++i) square[r][c + i] = rounded[i];
      if (codes != nullptr) StoreChunk<kChunk>(rounded, count, codes + first);
    }
    __syncthreads();
    TY_UNROLL
    for (int step = 0; step < kSquareSteps; ++step) {
      const int item = step * kSquareThreads + static_cast<int>(threadIdx.x);
      const int c = item / kAcross;
      const int r = item % kAcross * kChunk;
      const int64_t count = rows - top - r;
      if (left + c >= cols || count <= 0) continue;
      Y column[kChunk];
      TY_UNROLL
      for (int i = 0; i < kChunk; ++i) column[i] = i < count ? square[r + i][c] : Y{};
      StoreChunk<kChunk>(column, count, transposed + (left + c) * rows + top + r);
    }
  }
}

// A block a row.
constexpr int kSumThreads = 256;

template <typename X>
__global__ void __launch_bounds__(kSumThreads)
    RowSumsKernel(const X* codes, const float* inverse, float* y, int64_t rows, int64_t cols, bool accumulate) {
  constexpr int kCodes = 16;  // one load
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    float sum = 0;
    for (int64_t c = int64_t{threadIdx.x} * kCodes; c < cols; c += int64_t{kSumThreads} * kCodes) {
      X loaded[kCodes];
      LoadChunk<kCodes>(codes + row * cols + c, cols - c, loaded);
      TY_UNROLL
      for (int i = 0; i < kCodes; ++i) sum += WidenToFloat(loaded[i]);  // zeros behind the row
    }
    sum = BlockReduce<kSumThreads>(sum, Sum());
    if (threadIdx.x == 0) y[row] = accumulate ? y[row] + *inverse * sum : *inverse * sum;
  }
}

__global__ void InverseKernel(const float* amax, int64_t count, float target, float* inverse) {
  for (int64_t i = GlobalThread(); i < count; i += GlobalThreads()) inverse[i] = Fp8UsedAmax(amax[i]) / target;
}

template <typename X>
__global__ void DequantizeKernel(const X* codes, const float* inverse, Floats y, int64_t scales, int64_t span) {
  ForRowChunks<kChunk>(scales, span, [&](int64_t row, int64_t column, int64_t count) {
    const int64_t first = row * span + column;
    const float scale = inverse[row];
    X stored[kChunk];
    float values[kChunk];
    LoadChunk<kChunk>(codes + first, count, stored);
    TY_UNROLL
    for (int i = 0; i < kChunk; ++i) values[i] = WidenToFloat(stored[i]) * scale;
    Store<kChunk>(values, y, first, count);
  });
}

// Calls body(a null pointer to the type of the codes).
template <typename Body>
void DispatchFp8(DType dtype, const Body& body) {
  if (dtype == DType::kF8E4M3) return body(static_cast<Float8E4M3*>(nullptr));
  body(static_cast<Float8E5M2*>(nullptr));
}

}  // namespace

void Fp8QuantizeCuda(const Fp8QuantizeArgs& args, Stream& stream) {
  const int64_t scales = args.amax.size();
  if (scales == 0) return;
  const int64_t span = args.x.size() / scales;
  const Grid grid = RowChunkGrid(scales, (span + kChunk - 1) / kChunk);
  const float* const amax = args.amax.as<float>();
  float* const inverse = args.inverse.as<float>();
  const bool turns = static_cast<bool>(args.transposed);
  // The blocks of one row all read its amax; only where there is one of them may it write over it.
  const bool is_inverse_apart = turns ? amax == inverse || span == 0 : amax == inverse && grid.blocks > 1;
  const QuantizePlan plan = {.x = args.x,
                             .amax = amax,
                             .target = args.target,
                             .rounding = args.rounding,
                             .random = args.random,
                             .inverse = is_inverse_apart ? nullptr : inverse,
                             .values = args.values,
                             .scales = scales,
                             .span = span};
  DispatchFp8(Fp8CodeType(args), [&](auto* type) {
    using Y = std::remove_pointer_t<decltype(type)>;
    if (turns) {
      const int64_t rows = args.x.dim(0);
      const int64_t cols = args.x.dim(1);
      const int64_t squares = (rows + kSquare - 1) / kSquare * ((cols + kSquare - 1) / kSquare);
      if (squares == 0) return;
      Launch(stream, RowGrid(squares, kSquareThreads), QuantizeAndTransposeKernel<Y>, plan,
             args.codes ? args.codes.as<Y>() : nullptr, args.transposed.as<Y>(), rows, cols);
      return;
    }
    Launch(stream, grid, QuantizeKernel<Y>, plan, args.codes.as<Y>());
  });
  if (is_inverse_apart) {
    Launch(stream, ElementwiseGrid(scales), InverseKernel, amax, scales, args.target, inverse);
  }
}

void Fp8RowSumsCuda(const Fp8RowSumsArgs& args, Stream& stream) {
  const int64_t rows = args.codes.dim(0);
  if (rows == 0) return;
  DispatchFp8(args.codes.dtype(), [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    Launch(stream, RowGrid(rows, kSumThreads), RowSumsKernel<X>, args.codes.as<X>(), args.inverse.as<float>(),
           args.y.as<float>(), rows, args.codes.dim(1), args.accumulate);
  });
}

void Fp8DequantizeCuda(const Fp8DequantizeArgs& args, Stream& stream) {
  const int64_t scales = args.inverse.size();
  if (scales == 0 || args.codes.size() == 0) return;
  const int64_t span = args.codes.size() / scales;
  DispatchFp8(args.codes.dtype(), [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    Launch(stream, RowChunkGrid(scales, (span + kChunk - 1) / kChunk), DequantizeKernel<X>, args.codes.as<X>(),
           args.inverse.as<float>(), Floats(args.y), scales, span);
  });
}

}  // namespace trainyard::kernels::internal
