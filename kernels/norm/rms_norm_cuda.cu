#include "kernels/core/block_reduce.h"
#include "kernels/core/dispatch.h"
#include "kernels/norm/rms_norm_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void RmsNormForwardKernel(const T* x, const T* residual, T* sum, const T* w, T* y, float* inv_rms,
                                     int64_t rows, int64_t cols, float eps) {
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    const T* in = x + r * cols;
    float squares = 0;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
      float value = ToFloat(in[c]);
      if (residual != nullptr) {
        const T stored = FromFloat<T>(value + ToFloat(residual[r * cols + c]));
        sum[r * cols + c] = stored;
        value = ToFloat(stored);
      }
      squares += value * value;
    }
    squares = BlockReduce<kThreads>(squares, Sum());
    const float inv = 1.0f / sqrtf(squares / static_cast<float>(cols) + eps);
    if (threadIdx.x == 0) inv_rms[r] = inv;
    const T* normed = residual != nullptr ? sum + r * cols : in;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
      y[r * cols + c] = FromFloat<T>(ToFloat(normed[c]) * inv * ToFloat(w[c]));
    }
  }
}

// One block for each partial sum of dw: dx of its rows, and what they add to dw.
template <typename T>
__global__ void RmsNormBackwardKernel(const T* x, const T* w, const float* inv_rms, const T* dy, const T* dresidual,
                                      T* dx, float* partials, int64_t rows, int64_t cols, int64_t rows_a_partial) {
  float* partial = partials + blockIdx.x * cols;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) partial[c] = 0;
  const int64_t begin = blockIdx.x * rows_a_partial;
  const int64_t end = begin + rows_a_partial < rows ? begin + rows_a_partial : rows;
  for (int64_t r = begin; r < end; ++r) {
    const float inv = inv_rms[r];
    float dot = 0;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
      dot += ToFloat(dy[r * cols + c]) * ToFloat(w[c]) * (ToFloat(x[r * cols + c]) * inv);
    }
    const float mean = BlockReduce<kThreads>(dot, Sum()) / static_cast<float>(cols);
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
      const int64_t at = r * cols + c;
      const float normed = ToFloat(x[at]) * inv;
      const float upstream = ToFloat(dy[at]);
      partial[c] += upstream * normed;
      const float gradient = inv * (upstream * ToFloat(w[c]) - normed * mean);
      dx[at] = FromFloat<T>(dresidual == nullptr ? gradient : gradient + ToFloat(dresidual[at]));
    }
  }
}

template <typename T>
__global__ void AddPartialsKernel(const float* partials, int64_t count, int64_t cols, T* dw) {
  for (int64_t c = GlobalThread(); c < cols; c += GlobalThreads()) {
    float sum = partials[c];
    for (int64_t p = 1; p < count; ++p) sum += partials[p * cols + c];
    dw[c] = FromFloat<T>(ToFloat(dw[c]) + sum);
  }
}

}  // namespace

void RmsNormForwardCuda(const RmsNormForwardArgs& args, Stream& stream) {
  const int64_t rows = args.x.dim(0);
  if (rows == 0) return;
  DispatchFloat(args.x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* residual = args.residual ? args.residual.as<T>() : nullptr;
    T* sum = args.residual ? args.sum.as<T>() : nullptr;
    Launch(stream, RowGrid(rows, kThreads), RmsNormForwardKernel<T>, args.x.as<T>(), residual, sum, args.w.as<T>(),
           args.y.as<T>(), args.inv_rms.as<float>(), rows, args.x.dim(1), args.eps);
  });
}

void RmsNormBackwardCuda(const RmsNormBackwardArgs& args, Stream& stream) {
  const int64_t rows = args.x.dim(0);
  const int64_t cols = args.x.dim(1);
  if (rows == 0 || cols == 0) return;
  const int64_t partials = RmsNormPartialCount(rows);
  float* workspace = static_cast<float*>(args.workspace.data());
  DispatchFloat(args.x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* dresidual = args.dresidual ? args.dresidual.as<T>() : nullptr;
    Launch(stream, RowGrid(partials, kThreads), RmsNormBackwardKernel<T>, args.x.as<T>(), args.w.as<T>(),
           args.inv_rms.as<float>(), args.dy.as<T>(), dresidual, args.dx.as<T>(), workspace, rows, cols,
           RmsNormRowsPerPartial(rows));
  });
  DispatchFloat(args.dw.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Launch(stream, ElementwiseGrid(cols), AddPartialsKernel<T>, workspace, partials, cols, args.dw.as<T>());
  });
}

}  // namespace trainyard::kernels::internal
