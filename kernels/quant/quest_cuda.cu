#include "kernels/core/block_reduce.h"
#include "kernels/quant/quest_internal.h"
#include "kernels/quant/warp_row.h"

namespace trainyard::kernels::internal {
namespace {

// What QuestQuantizeArgs points to; null: not there.
struct Results {
  float* steps;
  Floats values;
  uint8_t *codes, *mask, *kept;
  int32_t* code_sums;
  int64_t bit_bytes;  // of a row of `mask` and `kept`
};

// One bit for each of eight bytes that are 0 or 1.
__device__ inline uint8_t BitsOf(uint64_t bytes) {
  uint32_t bits = 0;
  TY_UNROLL
  for (int i = 0; i < kLaneColumns; ++i) bits |= static_cast<uint32_t>(bytes >> (8 * i) & 1) << i;
  return static_cast<uint8_t>(bits);
}

// The bits of a row's last columns that are there.
__device__ inline uint8_t KnownBits(int64_t count) {
  return static_cast<uint8_t>(count >= kLaneColumns ? 0xFF : (1 << count) - 1);
}

// A row's clip point and step: a warp's work. Sums are the CPU's: a lane's columns in order, then by halves.
template <int kParts>
__device__ QuestRow RowOf(const RotatedRows& rows, int64_t r, const QuestPlan& plan, const float* steps) {
  if (plan.format.clip == QuestClip::kGiven) return plan.OfStep(steps[r]);
  if (plan.format.clip == QuestClip::kAbsMax) {
    uint32_t largest = 0;
    for (int64_t first = 0; first < rows.cols; first += kParts * kTileColumns) {
      float v[kParts][kLaneColumns];
      LoadRotatedTile<kParts>(rows, r, first, v);
      TY_UNROLL
      for (int part = 0; part < kParts; ++part) {
        TY_UNROLL
        for (int i = 0; i < kLaneColumns; ++i) {
          largest = Max()(largest, __float_as_uint(v[part][i]) & 0x7FFFFFFF);
        }
      }
    }
    return plan.OfLargest(__uint_as_float(WarpReduce(largest, Max())));
  }
  float sum = 0;
  for (int64_t c = Lane(); c < rows.cols; c += 32) {
    float v;
    Load<1>(rows.x, r * rows.cols + c, 1, &v);
    sum = __builtin_fmaf(v, v, sum);
  }
  return plan.OfRms(sqrtf(WarpReduce(sum, Sum()) / static_cast<float>(rows.cols)));
}

// The eight columns from v on, `count` of which are there, of a row at row r and column `column`. Returns the sum of
// codes.
__device__ inline int32_t QuantizeEight(const float* v, int64_t count, int64_t at, int64_t bits_at,
                                        const QuestPlan& plan, const QuestRow& row, const QuestPassing& passing,
                                        const Results& results) {
  float values[kLaneColumns];
  uint8_t codes[kLaneColumns];
  int32_t sum = 0;
  TY_UNROLL
  for (int i = 0; i < kLaneColumns; ++i) {
    if (plan.is_int) {
      const float level = QuestLevel(v[i], row.step, plan.lowest, plan.highest);
      const int32_t code = static_cast<int32_t>(level) - 1;
      values[i] = QuestLevelValue(level, row.step);
      codes[i] = static_cast<uint8_t>(code);
      sum += i < count ? static_cast<int8_t>(codes[i]) : 0;
    } else {
      codes[i] = E2M1Code(v[i] / row.step);
      values[i] = QuestFp4Value(codes[i], row.step);
    }
  }
  if (plan.format.is_2_4_sparse) {
    const uint64_t kept = QuestKeptBytes(v);
    TY_UNROLL
    for (int i = 0; i < kLaneColumns; ++i) {
      const bool is_kept = (kept >> (8 * i) & 1) != 0;
      values[i] = is_kept ? values[i] : 0.0f;
      codes[i] = is_kept ? codes[i] : uint8_t{0};
    }
    if (results.kept != nullptr) results.kept[bits_at] = BitsOf(kept);
  }
  if (results.codes != nullptr) StoreChunk<kLaneColumns>(codes, count, results.codes + at);
  if (results.mask != nullptr) {
    uint32_t bits = 0;
    TY_UNROLL
    for (int i = 0; i < kLaneColumns; ++i) {
      const float distance = passing.kind == QuestPassing::Kind::kNear ? v[i] - values[i] : v[i];
      const bool passes = passing.kind == QuestPassing::Kind::kAlways || __builtin_fabsf(distance) <= passing.limit;
      bits |= (passes ? 1u : 0u) << i;
    }
    results.mask[bits_at] = static_cast<uint8_t>(bits & KnownBits(count));
  }
  if (results.values.data != nullptr) Store<kLaneColumns>(values, results.values, at, count);
  return sum;
}

template <int kParts>
__global__ void QuantizeKernel(RotatedRows rows, int64_t row_count, QuestPlan plan, Results results) {
  for (int64_t r = FirstWarpRow(); r < row_count; r += WarpRowStride()) {
    const QuestRow row = RowOf<kParts>(rows, r, plan, results.steps);
    const QuestPassing passing = QuestPassingOf(plan, row);
    int32_t sum = 0;
    for (int64_t first = 0; first < rows.cols; first += kParts * kTileColumns) {
      float v[kParts][kLaneColumns];
      LoadRotatedTile<kParts>(rows, r, first, v);
      TY_UNROLL
      for (int part = 0; part < kParts; ++part) {
        const int64_t column = first + part * kTileColumns + Lane() * kLaneColumns;
        if (column >= rows.cols) continue;
        sum += QuantizeEight(v[part], rows.cols - column, r * rows.cols + column, r * results.bit_bytes + column / 8,
                             plan, row, passing, results);
      }
    }
    if (results.code_sums != nullptr) sum = WarpReduce(sum, Sum());
    if (Lane() == 0) {
      if (plan.format.clip != QuestClip::kGiven) results.steps[r] = row.step;
      if (results.code_sums != nullptr) results.code_sums[r] = sum;
    }
  }
}

__global__ void DequantizeKernel(const uint8_t* codes, const float* steps, const uint8_t* kept, Floats values,
                                 int64_t rows, int64_t cols, int64_t bit_bytes, bool is_int) {
  ForRowChunks<kLaneColumns>(rows, cols, [&](int64_t row, int64_t column, int64_t count) {
    const int64_t at = row * cols + column;
    const float step = steps[row];
    const uint32_t bits = kept == nullptr ? 0xFFu : kept[row * bit_bytes + column / 8];
    uint8_t stored[kLaneColumns];
    float y[kLaneColumns];
    LoadChunk<kLaneColumns>(codes + at, count, stored);
    TY_UNROLL
    for (int i = 0; i < kLaneColumns; ++i) {
      const float value = is_int ? QuestIntValue(static_cast<int8_t>(stored[i]), step) : QuestFp4Value(stored[i], step);
      y[i] = (bits >> i & 1) != 0 ? value : 0.0f;
    }
    Store<kLaneColumns>(y, values, at, count);
  });
}

template <typename T>
T* DataOf(const TensorView& view) {
  return view ? view.as<T>() : nullptr;
}

}  // namespace

void QuestQuantizeCuda(const QuestQuantizeArgs& args, Stream& stream) {
  const int64_t rows = args.v.dim(0);
  if (rows == 0) return;
  const Results results = {.steps = args.steps.as<float>(),
                           .values = args.values,
                           .codes = DataOf<uint8_t>(args.codes),
                           .mask = DataOf<uint8_t>(args.mask),
                           .kept = DataOf<uint8_t>(args.kept),
                           .code_sums = DataOf<int32_t>(args.code_sums),
                           .bit_bytes = PackedBytes(args.v.dim(1), 1)};
  const int parts = TileParts(args.rotate_group);
  const auto kernel = parts == 1 ? QuantizeKernel<1> : parts == 2 ? QuantizeKernel<2> : QuantizeKernel<4>;
  Launch(stream, WarpRowGrid(rows), kernel, RotatedRows(args.v, args.rotate_group), rows, QuestPlan(args.format),
         results);
}

void QuestDequantizeCuda(const QuestDequantizeArgs& args, Stream& stream) {
  const int64_t rows = args.codes.dim(0);
  const int64_t cols = args.codes.dim(1);
  if (rows == 0 || cols == 0) return;
  Launch(stream, RowChunkGrid(rows, (cols + kLaneColumns - 1) / kLaneColumns), DequantizeKernel,
         args.codes.as<uint8_t>(), args.steps.as<float>(), DataOf<uint8_t>(args.kept), Floats(args.values), rows, cols,
         PackedBytes(cols, 1), args.grid == QuestGrid::kInt);
}

}  // namespace trainyard::kernels::internal
