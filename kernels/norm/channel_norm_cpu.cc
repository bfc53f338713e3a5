#include <algorithm>
#include <cmath>

#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/norm/channel_norm_internal.h"

namespace trainyard::kernels::internal {
namespace {

// sum over i of term(i), in kLanes partial sums by i mod kLanes, which are added in double.
template <typename Term>
TY_INLINE double LaneSum(int64_t count, const Term& term) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  }
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] += term(i);
  double sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += static_cast<double>(lanes[lane]);
  return sum;
}

TY_SIMD double Sum(const float* x, int64_t count) {
  return LaneSum(count, [&](int64_t i) TY_INLINE_LAMBDA { return x[i]; });
}

TY_SIMD double SquaredDeviations(const float* x, int64_t count, float mean) {
  return LaneSum(count, [&](int64_t i) TY_INLINE_LAMBDA { return (x[i] - mean) * (x[i] - mean); });
}

TY_SIMD void NormalizeRow(const float* x, float* y, int64_t count, float mean, float scale, float shift) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = (x[i] - mean) * scale + shift;
}

// Sums of dy and of dy n over a row.
TY_SIMD void RowSums(const float* x, const float* dy, int64_t count, float mean, float inv_std, float* sums) {
  sums[0] = static_cast<float>(LaneSum(count, [&](int64_t i) TY_INLINE_LAMBDA { return dy[i]; }));
  sums[1] =
      static_cast<float>(LaneSum(count, [&](int64_t i) TY_INLINE_LAMBDA { return dy[i] * ((x[i] - mean) * inv_std); }));
}

TY_SIMD void GradientRow(const float* x, const float* dy, float* dx, int64_t count, RowGradient r, bool accumulate) {
  if (accumulate) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) dx[i] += r.At(x[i], dy[i]);
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) dx[i] = r.At(x[i], dy[i]);
  }
}

}  // namespace

void ChannelNormForwardCpu(const ChannelNormForwardArgs& args, Stream& stream) {
  const ChannelSets sets(args.kind, args.groups, args.x);
  const int64_t pixels = sets.pixels;
  const float* x = args.x.as<float>();
  const float* w = args.w.as<float>();
  const float* b = args.b.as<float>();
  float* y = args.y.as<float>();
  float* means = args.mean.as<float>();
  float* inv_stds = args.inv_std.as<float>();
  stream.pool().ParallelFor(sets.number, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      double sum = 0;
      for (int64_t i = 0; i < sets.count; ++i) sum += Sum(x + sets.row(s, i) * pixels, pixels);
      const auto mean = static_cast<float>(sum / sets.values());
      double squares = 0;
      for (int64_t i = 0; i < sets.count; ++i) squares += SquaredDeviations(x + sets.row(s, i) * pixels, pixels, mean);
      const auto inv_std = static_cast<float>(1.0 / std::sqrt(squares / sets.values() + static_cast<double>(args.eps)));
      means[s] = mean;
      inv_stds[s] = inv_std;
      for (int64_t i = 0; i < sets.count; ++i) {
        const int64_t row = sets.row(s, i);
        const int64_t c = row % sets.channels;
        NormalizeRow(x + row * pixels, y + row * pixels, pixels, mean, inv_std * w[c], b[c]);
      }
    }
  });
}

void ChannelNormBackwardCpu(const ChannelNormBackwardArgs& args, Stream& stream) {
  const ChannelSets sets(args.kind, args.groups, args.x);
  const int64_t pixels = sets.pixels;
  const int64_t rows = args.x.dim(0) * sets.channels;
  const float* x = args.x.as<float>();
  const float* w = args.w.as<float>();
  const float* dy = args.dy.as<float>();
  const float* means = args.mean.as<float>();
  const float* inv_stds = args.inv_std.as<float>();
  float* dx = args.dx.as<float>();
  float* sums = static_cast<float*>(args.workspace.data());
  stream.pool().ParallelFor(sets.number, 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const float mean = means[s];
      const float inv_std = inv_stds[s];
      double gradient = 0;
      double projection = 0;
      for (int64_t i = 0; i < sets.count; ++i) {
        const int64_t row = sets.row(s, i);
        float* row_sums = sums + 2 * row;
        RowSums(x + row * pixels, dy + row * pixels, pixels, mean, inv_std, row_sums);
        const auto weight = static_cast<double>(w[row % sets.channels]);
        gradient += weight * static_cast<double>(row_sums[0]);
        projection += weight * static_cast<double>(row_sums[1]);
      }
      const auto offset = static_cast<float>(static_cast<double>(inv_std) * gradient / sets.values());
      const auto slope = static_cast<float>(static_cast<double>(inv_std) * projection / sets.values());
      for (int64_t i = 0; i < sets.count; ++i) {
        const int64_t at = sets.row(s, i) * pixels;
        GradientRow(x + at, dy + at, dx + at, pixels,
                    {mean, inv_std, inv_std * w[sets.row(s, i) % sets.channels], offset, slope}, args.accumulate);
      }
    }
  });
  if (!args.dw) return;
  float* dw = args.dw.as<float>();
  float* db = args.db.as<float>();
  stream.pool().ParallelFor(sets.channels, 64, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double db_sum = args.accumulate_weights ? static_cast<double>(db[c]) : 0.0;
      double dw_sum = args.accumulate_weights ? static_cast<double>(dw[c]) : 0.0;
      for (int64_t row = c; row < rows; row += sets.channels) {
        db_sum += static_cast<double>(sums[2 * row]);
        dw_sum += static_cast<double>(sums[2 * row + 1]);
      }
      db[c] = static_cast<float>(db_sum);
      dw[c] = static_cast<float>(dw_sum);
    }
  });
}

}  // namespace trainyard::kernels::internal
