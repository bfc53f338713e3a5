#include "kernels/core/block_reduce.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/vec.h"
#include "kernels/norm/rms_norm_internal.h"
#include "kernels/quant/largest_magnitude_device.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;

template <typename T>
struct Forward {
  const T* x;
  const T* residual;  // or null
  T* sum;
  const T* w;
  T* y;
  float* inv_rms;
  int64_t rows, cols;
  float eps;
  uint32_t* amax;  // of y, or null
};

template <typename T>
__device__ float InverseRms(float squares, const Forward<T>& args) {
  return 1.0f / sqrtf(squares / static_cast<float>(args.cols) + args.eps);
}

// Rows of at most kRowThreads * kVecs vectors: each thread holds its part of the row, so that memory is read once.
// kRowThreads: a warp (then a block does several rows) or the block.
template <int kRowThreads, int kVecs, typename T>
__global__ void __launch_bounds__(kThreads) ForwardHeldKernel(Forward<T> args) {
  constexpr int kWidth = kVecWidth<T>;
  constexpr int kRows = kThreads / kRowThreads;
  const int lane = static_cast<int>(threadIdx.x) % kRowThreads;
  const int vectors = static_cast<int>(args.cols / kWidth);
  uint32_t largest = 0;
  for (int64_t r = int64_t{blockIdx.x} * kRows + threadIdx.x / kRowThreads; r < args.rows;
       r += int64_t{gridDim.x} * kRows) {
    Vec<T, kWidth> held[kVecs] = {};
    TY_UNROLL
    for (int i = 0; i < kVecs; ++i) {
      const int v = lane + i * kRowThreads;
      if (v < vectors) held[i] = LoadVec<kWidth>(args.x + r * args.cols + v * kWidth);
    }
    if (args.residual != nullptr) {
      Vec<T, kWidth> other[kVecs] = {};
      TY_UNROLL
      for (int i = 0; i < kVecs; ++i) {
        const int v = lane + i * kRowThreads;
        if (v < vectors) other[i] = LoadVec<kWidth>(args.residual + r * args.cols + v * kWidth);
      }
      TY_UNROLL
      for (int i = 0; i < kVecs; ++i) {
        const int v = lane + i * kRowThreads;
        Vec<float, kWidth> total = Widen(held[i]);
        const Vec<float, kWidth> added = Widen(other[i]);
        TY_UNROLL
        for (int e = 0; e < kWidth; ++e) total[e] += added[e];
        held[i] = Narrow<T>(total);
        if (v < vectors) StoreVec(args.sum + r * args.cols + v * kWidth, held[i]);
      }
    }
    float squares = 0;  // of the stored sum; what lies beyond the row is 0
    TY_UNROLL
    for (int i = 0; i < kVecs; ++i) {
      const Vec<float, kWidth> value = Widen(held[i]);
      TY_UNROLL
      for (int e = 0; e < kWidth; ++e) squares += value[e] * value[e];
    }
    if constexpr (kRowThreads == 32) {
      squares = WarpReduce(squares, Sum());
    } else {
      static_assert(kRowThreads == kThreads);
      squares = BlockReduce<kThreads>(squares, Sum());
    }
    const float inv = InverseRms(squares, args);
    if (lane == 0) args.inv_rms[r] = inv;
    TY_UNROLL
    for (int i = 0; i < kVecs; ++i) {
      const int v = lane + i * kRowThreads;
      if (v >= vectors) break;
      Vec<float, kWidth> value = Widen(held[i]);
      const Vec<float, kWidth> w = Widen(LoadVec<kWidth>(args.w + v * kWidth));
      TY_UNROLL
      for (int e = 0; e < kWidth; ++e) value[e] = value[e] * inv * w[e];
      const Vec<T, kWidth> y = Narrow<T>(value);
      StoreVec(args.y + r * args.cols + v * kWidth, y);
      largest = LargerMagnitude(y, largest);
    }
  }
  RaiseAmax<kThreads>(largest, args.amax);
}

// Any other row: a block reads it twice, an element at a time.
template <typename T>
__global__ void ForwardAnyKernel(Forward<T> args) {
  const int64_t cols = args.cols;
  uint32_t largest = 0;
  for (int64_t r = blockIdx.x; r < args.rows; r += gridDim.x) {
    const T* in = args.x + r * cols;
    float squares = 0;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
      float value = ToFloat(in[c]);
      if (args.residual != nullptr) {
        const T stored = FromFloat<T>(value + ToFloat(args.residual[r * cols + c]));
        args.sum[r * cols + c] = stored;
        value = ToFloat(stored);
      }
      squares += value * value;
    }
    const float inv = InverseRms(BlockReduce<kThreads>(squares, Sum()), args);
    if (threadIdx.x == 0) args.inv_rms[r] = inv;
    const T* normed = args.residual != nullptr ? args.sum + r * cols : in;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
      const T y = FromFloat<T>(ToFloat(normed[c]) * inv * ToFloat(args.w[c]));
      args.y[r * cols + c] = y;
      largest = LargerMagnitude(y, largest);
    }
  }
  RaiseAmax<kThreads>(largest, args.amax);
}

template <typename T>
struct Backward {
  const T* x;
  const T* w;
  const float* inv_rms;
  const T* dy;
  const T* dresidual;  // or null
  T* dx;
  float* partials;  // of dw, one row a block
  int64_t rows, cols, rows_a_partial;
  uint32_t* amax;  // of dx, or null
};

// One block for each partial sum of dw: dx of its rows, and what they add to dw, which its threads hold. Rows of at
// most kRowThreads * kVecs vectors.
template <int kRowThreads, int kVecs, typename T>
__global__ void __launch_bounds__(kRowThreads) BackwardHeldKernel(Backward<T> args) {
  constexpr int kWidth = kVecWidth<T>;
  using V = Vec<T, kWidth>;
  const int lane = static_cast<int>(threadIdx.x);
  const int vectors = static_cast<int>(args.cols / kWidth);
  V w[kVecs] = {};
  Vec<float, kWidth> dw[kVecs] = {};
  uint32_t largest = 0;
  TY_UNROLL
  for (int i = 0; i < kVecs; ++i) {
    const int v = lane + i * kRowThreads;
    if (v < vectors) w[i] = LoadVec<kWidth>(args.w + v * kWidth);
  }
  const int64_t begin = blockIdx.x * args.rows_a_partial;
  const int64_t end = begin + args.rows_a_partial < args.rows ? begin + args.rows_a_partial : args.rows;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t row = r * args.cols;
    V x[kVecs] = {}, dy[kVecs] = {}, dresidual[kVecs] = {};
    TY_UNROLL
    for (int i = 0; i < kVecs; ++i) {
      const int v = lane + i * kRowThreads;
      if (v >= vectors) break;
      x[i] = LoadVec<kWidth>(args.x + row + v * kWidth);
      dy[i] = LoadVec<kWidth>(args.dy + row + v * kWidth);
      if (args.dresidual != nullptr) dresidual[i] = LoadVec<kWidth>(args.dresidual + row + v * kWidth);
    }
    const float inv = args.inv_rms[r];
    float dot = 0;
    TY_UNROLL
    for (int i = 0; i < kVecs; ++i) {
      const Vec<float, kWidth> value = Widen(x[i]), upstream = Widen(dy[i]), weight = Widen(w[i]);
      TY_UNROLL
      for (int e = 0; e < kWidth; ++e) dot += upstream[e] * weight[e] * (value[e] * inv);
    }
    const float mean = BlockReduce<kRowThreads>(dot, Sum()) / static_cast<float>(args.cols);
    TY_UNROLL
    for (int i = 0; i < kVecs; ++i) {
      const int v = lane + i * kRowThreads;
      if (v >= vectors) break;
      const Vec<float, kWidth> value = Widen(x[i]), upstream = Widen(dy[i]), weight = Widen(w[i]);
      const Vec<float, kWidth> other = Widen(dresidual[i]);
      Vec<float, kWidth> dx;
      TY_UNROLL
      for (int e = 0; e < kWidth; ++e) {
        const float normed = value[e] * inv;
        dw[i][e] += upstream[e] * normed;
        dx[e] = inv * (upstream[e] * weight[e] - normed * mean) + other[e];
      }
      const V stored = Narrow<T>(dx);
      StoreVec(args.dx + row + v * kWidth, stored);
      largest = LargerMagnitude(stored, largest);
    }
  }
  RaiseAmax<kRowThreads>(largest, args.amax);
  TY_UNROLL
  for (int i = 0; i < kVecs; ++i) {
    const int v = lane + i * kRowThreads;
    if (v < vectors) StoreVec(args.partials + blockIdx.x * args.cols + v * kWidth, dw[i]);
  }
}

template <typename T>
__global__ void BackwardAnyKernel(Backward<T> args) {
  const int64_t cols = args.cols;
  float* partial = args.partials + blockIdx.x * cols;
  uint32_t largest = 0;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) partial[c] = 0;
  const int64_t begin = blockIdx.x * args.rows_a_partial;
  const int64_t end = begin + args.rows_a_partial < args.rows ? begin + args.rows_a_partial : args.rows;
  for (int64_t r = begin; r < end; ++r) {
    const float inv = args.inv_rms[r];
    float dot = 0;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
      dot += ToFloat(args.dy[r * cols + c]) * ToFloat(args.w[c]) * (ToFloat(args.x[r * cols + c]) * inv);
    }
    const float mean = BlockReduce<kThreads>(dot, Sum()) / static_cast<float>(cols);
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
      const int64_t at = r * cols + c;
      const float normed = ToFloat(args.x[at]) * inv;
      const float upstream = ToFloat(args.dy[at]);
      partial[c] += upstream * normed;
      const float gradient = inv * (upstream * ToFloat(args.w[c]) - normed * mean);
      const T dx = FromFloat<T>(args.dresidual == nullptr ? gradient : gradient + ToFloat(args.dresidual[at]));
      args.dx[at] = dx;
      largest = LargerMagnitude(dx, largest);
    }
  }
  RaiseAmax<kThreads>(largest, args.amax);
}

// dw += the sum of all partials, 32 columns a block; each warp adds every kAddWarps-th partial.
constexpr int kAddWarps = 32;

template <typename T>
__global__ void __launch_bounds__(kAddWarps * 32)
    AddPartialsKernel(const float* partials, int64_t count, int64_t cols, T* dw) {
  __shared__ float sums[kAddWarps][32];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t c = int64_t{blockIdx.x} * 32 + lane;
  float sum = 0;
  if (c < cols) {
    TY_UNROLL_BY(4)
    for (int64_t p = warp; p < count; p += kAddWarps) sum += partials[p * cols + c];
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || c >= cols) return;
  float total = 0;
  for (int w = 0; w < kAddWarps; ++w) total += sums[w][lane];
  dw[c] = FromFloat<T>(ToFloat(dw[c]) + total);
}

}  // namespace

void RmsNormForwardCuda(const RmsNormForwardArgs& args, Stream& stream) {
  const int64_t rows = args.x.dim(0);
  const int64_t cols = args.x.dim(1);
  uint32_t* const amax = StartAmax(args.amax, stream);
  if (rows == 0) return;
  DispatchFloat(args.x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Forward<T> forward = {.x = args.x.as<T>(),
                                .residual = args.residual ? args.residual.as<T>() : nullptr,
                                .sum = args.residual ? args.sum.as<T>() : nullptr,
                                .w = args.w.as<T>(),
                                .y = args.y.as<T>(),
                                .inv_rms = args.inv_rms.as<float>(),
                                .rows = rows,
                                .cols = cols,
                                .eps = args.eps,
                                .amax = amax};
    const bool aligned =
        cols % kVecWidth<T> == 0 && AllVecAligned(forward.x, forward.residual, forward.sum, forward.w, forward.y);
    const int64_t vectors = cols / kVecWidth<T>;
    const Grid warps = RowGrid((rows + kThreads / 32 - 1) / (kThreads / 32), kThreads);
    const Grid blocks = RowGrid(rows, kThreads);
    if (!aligned || vectors > kThreads * 4) {
      Launch(stream, blocks, ForwardAnyKernel<T>, forward);
    } else if (vectors <= 32 * 4) {
      Launch(stream, warps, ForwardHeldKernel<32, 4, T>, forward);
    } else if (vectors <= 32 * 8) {
      Launch(stream, warps, ForwardHeldKernel<32, 8, T>, forward);
    } else {
      Launch(stream, blocks, ForwardHeldKernel<kThreads, 4, T>, forward);
    }
  });
}

void RmsNormBackwardCuda(const RmsNormBackwardArgs& args, Stream& stream) {
  const int64_t rows = args.x.dim(0);
  const int64_t cols = args.x.dim(1);
  uint32_t* const amax = StartAmax(args.amax, stream);
  if (rows == 0 || cols == 0) return;
  const int64_t partials = RmsNormDevicePartialCount(rows);
  float* workspace = static_cast<float*>(args.workspace.data());
  DispatchFloat(args.x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Backward<T> backward = {.x = args.x.as<T>(),
                                  .w = args.w.as<T>(),
                                  .inv_rms = args.inv_rms.as<float>(),
                                  .dy = args.dy.as<T>(),
                                  .dresidual = args.dresidual ? args.dresidual.as<T>() : nullptr,
                                  .dx = args.dx.as<T>(),
                                  .partials = workspace,
                                  .rows = rows,
                                  .cols = cols,
                                  .rows_a_partial = RmsNormDeviceRowsPerPartial(rows),
                                  .amax = amax};
    const bool aligned = cols % kVecWidth<T> == 0 && AllVecAligned(backward.x, backward.w, backward.dy,
                                                                   backward.dresidual, backward.dx, backward.partials);
    const int64_t vectors = cols / kVecWidth<T>;
    if (!aligned || vectors > kThreads * 4) {
      Launch(stream, RowGrid(partials, kThreads), BackwardAnyKernel<T>, backward);
    } else if (vectors <= 128) {
      Launch(stream, RowGrid(partials, 128), BackwardHeldKernel<128, 1, T>, backward);
    } else if (vectors <= kThreads) {
      Launch(stream, RowGrid(partials, kThreads), BackwardHeldKernel<kThreads, 1, T>, backward);
    } else if (vectors <= kThreads * 2) {
      Launch(stream, RowGrid(partials, kThreads * 2), BackwardHeldKernel<kThreads * 2, 1, T>, backward);
    } else {
      Launch(stream, RowGrid(partials, kThreads * 2), BackwardHeldKernel<kThreads * 2, 2, T>, backward);
    }
  });
  DispatchFloat(args.dw.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Launch(stream, {.blocks = (cols + 31) / 32, .threads = kAddWarps * 32}, AddPartialsKernel<T>, workspace, partials,
           cols, args.dw.as<T>());
  });
}

}  // namespace trainyard::kernels::internal
