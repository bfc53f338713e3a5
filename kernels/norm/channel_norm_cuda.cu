#include <cmath>

#include "kernels/core/block_reduce.h"
#include "kernels/core/cells.h"
#include "kernels/norm/channel_norm_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;

// One block a set. Sums are f32 in a thread and f64 over the threads.
__global__ void __launch_bounds__(kThreads)
    ChannelNormForwardKernel(ChannelSets sets, const float* x, const float* w, const float* b, float* y, float* means,
                             float* inv_stds, float eps) {
  for (int64_t s = blockIdx.x; s < sets.number; s += gridDim.x) {
    float part = 0;
    for (Cells at(threadIdx.x, kThreads, sets.pixels); at.row < sets.count; at.Next()) {
      part += x[sets.row(s, at.row) * sets.pixels + at.col];
    }
    const auto mean = static_cast<float>(BlockReduce<kThreads>(static_cast<double>(part), Sum()) / sets.values());
    part = 0;
    for (Cells at(threadIdx.x, kThreads, sets.pixels); at.row < sets.count; at.Next()) {
      const float deviation = x[sets.row(s, at.row) * sets.pixels + at.col] - mean;
      part += deviation * deviation;
    }
    const double squares = BlockReduce<kThreads>(static_cast<double>(part), Sum());
    const auto inv_std = static_cast<float>(1.0 / sqrt(squares / sets.values() + static_cast<double>(eps)));
    if (threadIdx.x == 0) {
      means[s] = mean;
      inv_stds[s] = inv_std;
    }
    for (Cells at(threadIdx.x, kThreads, sets.pixels); at.row < sets.count; at.Next()) {
      const int64_t row = sets.row(s, at.row);
      const int64_t c = row % sets.channels;
      const int64_t i = row * sets.pixels + at.col;
      y[i] = (x[i] - mean) * (inv_std * w[c]) + b[c];
    }
  }
}

// One block a set: first the sums of its rows of pixels, a warp a row, which are kept for dw and db; then dx.
__global__ void __launch_bounds__(kThreads)
    ChannelNormBackwardKernel(ChannelSets sets, const float* x, const float* w, const float* means,
                              const float* inv_stds, const float* dy, float* dx, bool accumulate, float* sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  for (int64_t s = blockIdx.x; s < sets.number; s += gridDim.x) {
    const float mean = means[s];
    const float inv_std = inv_stds[s];
    double gradient = 0, projection = 0;
    for (int64_t i = warp; i < sets.count; i += kWarps) {
      const int64_t row = sets.row(s, i);
      float row_gradient = 0, row_projection = 0;
      for (int64_t p = lane; p < sets.pixels; p += 32) {
        const float upstream = dy[row * sets.pixels + p];
        row_gradient += upstream;
        row_projection += upstream * ((x[row * sets.pixels + p] - mean) * inv_std);
      }
      row_gradient = WarpReduce(row_gradient, Sum());
      row_projection = WarpReduce(row_projection, Sum());
      if (lane > 0) continue;
      sums[2 * row] = row_gradient;
      sums[2 * row + 1] = row_projection;
      const auto weight = static_cast<double>(w[row % sets.channels]);
      gradient += weight * static_cast<double>(row_gradient);
      projection += weight * static_cast<double>(row_projection);
    }
    gradient = BlockReduce<kThreads>(gradient, Sum());
    projection = BlockReduce<kThreads>(projection, Sum());
    const auto offset = static_cast<float>(static_cast<double>(inv_std) * gradient / sets.values());
    const auto slope = static_cast<float>(static_cast<double>(inv_std) * projection / sets.values());
    for (Cells at(threadIdx.x, kThreads, sets.pixels); at.row < sets.count; at.Next()) {
      const int64_t row = sets.row(s, at.row);
      const int64_t i = row * sets.pixels + at.col;
      const RowGradient values = {mean, inv_std, inv_std * w[row % sets.channels], offset, slope};
      const float value = values.At(x[i], dy[i]);
      dx[i] = accumulate ? dx[i] + value : value;
    }
  }
}

__global__ void WeightGradientsKernel(const float* sums, int64_t rows, int64_t channels, float* dw, float* db,
                                      bool accumulate) {
  for (int64_t c = GlobalThread(); c < channels; c += GlobalThreads()) {
    double db_sum = accumulate ? static_cast<double>(db[c]) : 0.0;
    double dw_sum = accumulate ? static_cast<double>(dw[c]) : 0.0;
    for (int64_t row = c; row < rows; row += channels) {
      db_sum += static_cast<double>(sums[2 * row]);
      dw_sum += static_cast<double>(sums[2 * row + 1]);
    }
    db[c] = static_cast<float>(db_sum);
    dw[c] = static_cast<float>(dw_sum);
  }
}

}  // namespace

void ChannelNormForwardCuda(const ChannelNormForwardArgs& args, Stream& stream) {
  const ChannelSets sets(args.kind, args.groups, args.x);
  Launch(stream, RowGrid(sets.number, kThreads), ChannelNormForwardKernel, sets, args.x.as<float>(), args.w.as<float>(),
         args.b.as<float>(), args.y.as<float>(), args.mean.as<float>(), args.inv_std.as<float>(), args.eps);
}

void ChannelNormBackwardCuda(const ChannelNormBackwardArgs& args, Stream& stream) {
  const ChannelSets sets(args.kind, args.groups, args.x);
  float* const sums = static_cast<float*>(args.workspace.data());
  Launch(stream, RowGrid(sets.number, kThreads), ChannelNormBackwardKernel, sets, args.x.as<float>(),
         args.w.as<float>(), args.mean.as<float>(), args.inv_std.as<float>(), args.dy.as<float>(), args.dx.as<float>(),
         args.accumulate, sums);
  if (!args.dw) return;
  Launch(stream, ElementwiseGrid(sets.channels), WeightGradientsKernel, sums, args.x.dim(0) * sets.channels,
         sets.channels, args.dw.as<float>(), args.db.as<float>(), args.accumulate_weights);
}

}  // namespace trainyard::kernels::internal
