#include <algorithm>
#include <cmath>

#include "kernels/core/simd.h"
#include "kernels/transform/axis_norms.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kStrip = 256;      // columns that are summed side by side
constexpr int64_t kBlockRows = 32;   // their sums are made in f32 over that many rows,
constexpr int64_t kBlockCols = 512;  // and those of a row over that many columns

template <NormOrder kOrder>
TY_INLINE float Power(float x) {
  return kOrder == NormOrder::kL1 ? __builtin_fabsf(x) : x * x;
}

template <NormOrder kOrder>
double Root(double sum) {
  return kOrder == NormOrder::kL1 ? sum : std::sqrt(sum);
}

template <NormOrder kOrder>
TY_INLINE void AddRows(const float* x, int64_t stride, int64_t rows, int64_t width, float* __restrict sums) {
  for (int64_t j = 0; j < width; ++j) sums[j] = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const float* row = x + i * stride;
    for (int64_t j = 0; j < width; ++j) sums[j] += Power<kOrder>(row[j]);
  }
}
TY_SIMD void AddRowsL1(const float* x, int64_t stride, int64_t rows, int64_t width, float* sums) {
  AddRows<NormOrder::kL1>(x, stride, rows, width, sums);
}
TY_SIMD void AddRowsL2(const float* x, int64_t stride, int64_t rows, int64_t width, float* sums) {
  AddRows<NormOrder::kL2>(x, stride, rows, width, sums);
}

template <NormOrder kOrder>
TY_INLINE float SumOfBlock(const float* x, int64_t count) {
  float lanes[kLanes] = {};
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += Power<kOrder>(x[i + lane]);
  }
  for (int64_t i = whole; i < count; ++i) lanes[i - whole] += Power<kOrder>(x[i]);
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}
TY_SIMD float SumOfBlockL1(const float* x, int64_t count) {
  return SumOfBlock<NormOrder::kL1>(x, count);
}
TY_SIMD float SumOfBlockL2(const float* x, int64_t count) {
  return SumOfBlock<NormOrder::kL2>(x, count);
}

template <NormOrder kOrder>
void NormsOfStrip(const float* x, int64_t rows, int64_t stride, int64_t width, float* norms) {
  double totals[kStrip] = {};
  float sums[kStrip];
  for (int64_t i = 0; i < rows; i += kBlockRows) {
    const auto add = kOrder == NormOrder::kL1 ? AddRowsL1 : AddRowsL2;
    add(x + i * stride, stride, std::min(kBlockRows, rows - i), width, sums);
    for (int64_t j = 0; j < width; ++j) totals[j] += static_cast<double>(sums[j]);
  }
  for (int64_t j = 0; j < width; ++j) norms[j] = static_cast<float>(Root<kOrder>(totals[j]));
}

template <NormOrder kOrder>
float NormOfRow(const float* x, int64_t cols) {
  double total = 0;
  for (int64_t j = 0; j < cols; j += kBlockCols) {
    const auto sum = kOrder == NormOrder::kL1 ? SumOfBlockL1 : SumOfBlockL2;
    total += static_cast<double>(sum(x + j, std::min(kBlockCols, cols - j)));
  }
  return static_cast<float>(Root<kOrder>(total));
}

template <NormOrder kOrder>
void Norms(const AxisNormsArgs& args, Stream& stream) {
  const int64_t rows = args.x.dim(0);
  const int64_t cols = args.x.dim(1);
  const float* x = args.x.as<float>();
  float* norms = args.norms.as<float>();
  if (args.axis == 0) {
    stream.pool().ParallelFor(rows, 8, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) norms[i] = NormOfRow<kOrder>(x + i * cols, cols);
    });
    return;
  }
  stream.pool().ParallelFor((cols + kStrip - 1) / kStrip, 1, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kStrip; first < std::min(end * kStrip, cols); first += kStrip) {
      NormsOfStrip<kOrder>(x + first, rows, cols, std::min(kStrip, cols - first), norms + first);
    }
  });
}

}  // namespace

void AxisNormsCpu(const AxisNormsArgs& args, Stream& stream) {
  if (args.order == NormOrder::kL1) {
    Norms<NormOrder::kL1>(args, stream);
  } else {
    Norms<NormOrder::kL2>(args, stream);
  }
}

}  // namespace trainyard::kernels::internal
