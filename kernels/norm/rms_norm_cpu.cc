#include <algorithm>
#include <cmath>

#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/norm/rms_norm_internal.h"
#include "kernels/quant/largest_magnitude.h"

namespace trainyard::kernels::internal {
namespace {

// Adds kLanes partial sums in a fixed tree.
TY_INLINE float SumLanes(const float (&lanes)[kLanes]) {
  float half[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) half[lane] = lanes[lane];
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) half[lane] += half[lane + width];
  }
  return half[0];
}

// sum over i of term(i), in kLanes partial sums by i mod kLanes.
template <typename Term>
TY_INLINE float LaneSum(int64_t count, const Term& term) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  }
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] += term(i);
  return SumLanes(lanes);
}

template <typename T>
struct ForwardRows {
  const T* x;
  const T* residual;  // or null
  T* sum;
  const T* w;
  T* y;
  float* inv_rms;
  int64_t cols;
  float eps;
};

template <typename T>
TY_INLINE void ForwardRange(const ForwardRows<T>& rows, int64_t begin, int64_t end) {
  const int64_t cols = rows.cols;
  for (int64_t r = begin; r < end; ++r) {
    const T* x = rows.x + r * cols;
    T* y = rows.y + r * cols;
    if (rows.residual != nullptr) {
      const T* residual = rows.residual + r * cols;
      T* sum = rows.sum + r * cols;
#pragma GCC ivdep
      for (int64_t c = 0; c < cols; ++c) sum[c] = FromFloat<T>(ToFloat(x[c]) + ToFloat(residual[c]));
      x = sum;
    }
    const float squares = LaneSum(cols, [&](int64_t c) TY_INLINE_LAMBDA { return ToFloat(x[c]) * ToFloat(x[c]); });
    const float inv = 1.0f / std::sqrt(squares / static_cast<float>(cols) + rows.eps);
    rows.inv_rms[r] = inv;
#pragma GCC ivdep
    for (int64_t c = 0; c < cols; ++c) y[c] = FromFloat<T>(ToFloat(x[c]) * inv * ToFloat(rows.w[c]));
  }
}

TY_SIMD void ForwardRangeF32(const ForwardRows<float>& rows, int64_t begin, int64_t end) {
  ForwardRange(rows, begin, end);
}
TY_SIMD void ForwardRangeBF16(const ForwardRows<BFloat16>& rows, int64_t begin, int64_t end) {
  ForwardRange(rows, begin, end);
}

template <typename T>
struct BackwardRows {
  const T* x;
  const T* w;
  const float* inv_rms;
  const T* dy;
  const T* dresidual;  // or null
  T* dx;
  int64_t cols;
};

// Rows [begin, end): dx, and their share of dw into `partial`, which is overwritten.
template <typename T>
TY_INLINE void BackwardRange(const BackwardRows<T>& rows, int64_t begin, int64_t end, float* partial) {
  const int64_t cols = rows.cols;
  for (int64_t c = 0; c < cols; ++c) partial[c] = 0;
  for (int64_t r = begin; r < end; ++r) {
    const T* x = rows.x + r * cols;
    const T* dy = rows.dy + r * cols;
    T* dx = rows.dx + r * cols;
    const float inv = rows.inv_rms[r];
    const float dot = LaneSum(
        cols, [&](int64_t c) TY_INLINE_LAMBDA { return ToFloat(dy[c]) * ToFloat(rows.w[c]) * (ToFloat(x[c]) * inv); });
    const float mean = dot / static_cast<float>(cols);
    if (rows.dresidual != nullptr) {
      const T* dresidual = rows.dresidual + r * cols;
#pragma GCC ivdep
      for (int64_t c = 0; c < cols; ++c) {
        const float normed = ToFloat(x[c]) * inv;
        const float upstream = ToFloat(dy[c]);
        partial[c] += upstream * normed;
        dx[c] = FromFloat<T>(inv * (upstream * ToFloat(rows.w[c]) - normed * mean) + ToFloat(dresidual[c]));
      }
    } else {
#pragma GCC ivdep
      for (int64_t c = 0; c < cols; ++c) {
        const float normed = ToFloat(x[c]) * inv;
        const float upstream = ToFloat(dy[c]);
        partial[c] += upstream * normed;
        dx[c] = FromFloat<T>(inv * (upstream * ToFloat(rows.w[c]) - normed * mean));
      }
    }
  }
}

TY_SIMD void BackwardRangeF32(const BackwardRows<float>& rows, int64_t begin, int64_t end, float* partial) {
  BackwardRange(rows, begin, end, partial);
}
TY_SIMD void BackwardRangeBF16(const BackwardRows<BFloat16>& rows, int64_t begin, int64_t end, float* partial) {
  BackwardRange(rows, begin, end, partial);
}

// partials[0] becomes the sum of all rows of partials, columns [begin, end).
TY_SIMD void SumPartials(float* partials, int64_t count, int64_t cols, int64_t begin, int64_t end) {
  for (int64_t p = 1; p < count; ++p) {
    const float* partial = partials + p * cols;
#pragma GCC ivdep
    for (int64_t c = begin; c < end; ++c) partials[c] += partial[c];
  }
}

}  // namespace

void RmsNormForwardCpu(const RmsNormForwardArgs& args, Stream& stream) {
  LargestMagnitude largest(args.amax);
  DispatchFloat(args.x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const ForwardRows<T> rows = {args.x.as<T>(),
                                 args.residual ? args.residual.as<T>() : nullptr,
                                 args.residual ? args.sum.as<T>() : nullptr,
                                 args.w.as<T>(),
                                 args.y.as<T>(),
                                 args.inv_rms.as<float>(),
                                 args.x.dim(1),
                                 args.eps};
    stream.pool().ParallelFor(args.x.dim(0), 8, [&](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<T, float>) {
        ForwardRangeF32(rows, begin, end);
      } else {
        ForwardRangeBF16(rows, begin, end);
      }
      largest.Add(args.y, begin * rows.cols, (end - begin) * rows.cols);
    });
  });
  largest.Finish();
}

void RmsNormBackwardCpu(const RmsNormBackwardArgs& args, Stream& stream) {
  const int64_t row_count = args.x.dim(0);
  const int64_t cols = args.x.dim(1);
  LargestMagnitude largest(args.amax);
  if (row_count == 0 || cols == 0) return largest.Finish();
  const int64_t share = RmsNormRowsPerPartial(row_count);
  const int64_t partial_count = RmsNormPartialCount(row_count);
  float* partials = static_cast<float*>(args.workspace.data());
  DispatchFloat(args.x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const BackwardRows<T> rows = {args.x.as<T>(),
                                  args.w.as<T>(),
                                  args.inv_rms.as<float>(),
                                  args.dy.as<T>(),
                                  args.dresidual ? args.dresidual.as<T>() : nullptr,
                                  args.dx.as<T>(),
                                  cols};
    stream.pool().ParallelFor(partial_count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) {
        const int64_t last = std::min(row_count, (p + 1) * share);
        if constexpr (std::is_same_v<T, float>) {
          BackwardRangeF32(rows, p * share, last, partials + p * cols);
        } else {
          BackwardRangeBF16(rows, p * share, last, partials + p * cols);
        }
        largest.Add(args.dx, p * share * cols, (last - p * share) * cols);
      }
    });
  });
  largest.Finish();
  stream.pool().ParallelFor(cols, 256, [&](int64_t begin, int64_t end) {
    SumPartials(partials, partial_count, cols, begin, end);
    DispatchFloat(args.dw.dtype(), [&](auto tag) {
      using T = typename decltype(tag)::type;
      T* dw = args.dw.as<T>();
      for (int64_t c = begin; c < end; ++c) dw[c] = FromFloat<T>(ToFloat(dw[c]) + partials[c]);
    });
  });
}

}  // namespace trainyard::kernels::internal
