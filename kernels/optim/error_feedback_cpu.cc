#include <cstring>

#include "kernels/optim/error_feedback_internal.h"
#include "kernels/optim/low_rank_rows.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kChunk = 512;  // columns, even: codes are packed from a buffer that long

struct Extremes {
  float min, max;
};

TY_SIMD Extremes ExtremesOf(const float* x, int64_t count) {
  float low[kLanes], high[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) low[lane] = high[lane] = x[0];
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      low[lane] = x[i + lane] < low[lane] ? x[i + lane] : low[lane];
      high[lane] = x[i + lane] > high[lane] ? x[i + lane] : high[lane];
    }
  }
  Extremes result = {x[0], x[0]};
  for (int lane = 0; lane < kLanes; ++lane) {
    result.min = std::min(result.min, low[lane]);
    result.max = std::max(result.max, high[lane]);
  }
  for (int64_t i = whole; i < count; ++i) {
    result.min = std::min(result.min, x[i]);
    result.max = std::max(result.max, x[i]);
  }
  return {result.min + 0.0f, result.max + 0.0f};  // which zero was met first must not show
}

TY_SIMD void Encode(const FeedbackGrid& grid, const float* x, int64_t count, uint8_t* __restrict codes) {
  const FeedbackGrid g = grid;
  for (int64_t i = 0; i < count; ++i) codes[i] = g.Code(x[i]);
}

TY_SIMD void PackPairs(const uint8_t* codes, int64_t pairs, uint8_t* __restrict packed) {
  for (int64_t i = 0; i < pairs; ++i) packed[i] = static_cast<uint8_t>(codes[2 * i] | (codes[2 * i + 1] << 4));
}

TY_SIMD void UnpackPairs(const uint8_t* packed, int64_t pairs, uint8_t* __restrict codes) {
  for (int64_t i = 0; i < pairs; ++i) {
    codes[2 * i] = packed[i] & 15;
    codes[2 * i + 1] = packed[i] >> 4;
  }
}

TY_SIMD void AddCodes(const FeedbackGrid& grid, float factor, const uint8_t* codes, int64_t count,
                      float* __restrict x) {
  const FeedbackGrid g = grid;
  for (int64_t i = 0; i < count; ++i) x[i] = AddFeedbackElement(factor, x[i], g.Value(codes[i]));
}

TY_SIMD void AddValues(float factor, const float* values, int64_t count, float* __restrict x) {
  for (int64_t i = 0; i < count; ++i) x[i] = AddFeedbackElement(factor, x[i], values[i]);
}

void StoreRow(const FeedbackStore& store, int64_t row, const float* x, int64_t cols) {
  const Extremes extremes = ExtremesOf(x, cols);
  store.min.as<float>()[row] = extremes.min;
  store.max.as<float>()[row] = extremes.max;
  const FeedbackGrid grid(store.bits, extremes.min, extremes.max);
  uint8_t* codes = store.codes.as<uint8_t>() + row * FeedbackRowBytes(store.bits, cols);
  if (store.bits == 8) return Encode(grid, x, cols, codes);
  uint8_t buffer[kChunk];
  for (int64_t begin = 0; begin < cols; begin += kChunk) {
    const int64_t count = std::min(kChunk, cols - begin);
    Encode(grid, x + begin, count, buffer);
    if (count % 2 != 0) buffer[count] = 0;
    PackPairs(buffer, (count + 1) / 2, codes + begin / 2);
  }
}

void AddRow(const FeedbackStore& store, int64_t row, float factor, float* x, int64_t cols) {
  const FeedbackGrid grid(store.bits, store.min.as<float>()[row], store.max.as<float>()[row]);
  const uint8_t* codes = store.codes.as<uint8_t>() + row * FeedbackRowBytes(store.bits, cols);
  if (store.bits == 8) return AddCodes(grid, factor, codes, cols, x);
  uint8_t buffer[kChunk];
  for (int64_t begin = 0; begin < cols; begin += kChunk) {
    const int64_t count = std::min(kChunk, cols - begin);
    UnpackPairs(codes + begin / 2, (count + 1) / 2, buffer);
    AddCodes(grid, factor, buffer, count, x + begin);
  }
}

}  // namespace

void AddFeedbackCpu(const AddFeedbackArgs& args, Stream& stream) {
  const float factor = args.factor ? *args.factor.as<float>() : 1.0f;
  const int64_t cols = args.gradient.dim(1);
  float* x = args.gradient.as<float>();
  const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, cols));
  stream.pool().ParallelFor(cols == 0 ? 0 : args.gradient.dim(0), grain, [&](int64_t begin, int64_t end) {
    if (args.store.bits == 32) {
      AddValues(factor, args.store.codes.as<float>() + begin * cols, (end - begin) * cols, x + begin * cols);
      return;
    }
    for (int64_t row = begin; row < end; ++row) AddRow(args.store, row, factor, x + row * cols, cols);
  });
}

void KeepResidualCpu(const KeepResidualArgs& args, Stream& stream) {
  const int64_t cols = args.gradient.dim(1);
  if (cols == 0) return;
  const float* x = args.gradient.as<float>();
  ForRowsOfProduct(args.selected, -args.share, 1, args.gradient, stream, [&](int64_t first, int64_t rows) {
    if (args.store.bits == 32) {
      std::memcpy(args.store.codes.as<float>() + first * cols, x + first * cols,
                  static_cast<size_t>(rows * cols) * sizeof(float));
      return;
    }
    for (int64_t row = first; row < first + rows; ++row) StoreRow(args.store, row, x + row * cols, cols);
  });
}

}  // namespace trainyard::kernels::internal
