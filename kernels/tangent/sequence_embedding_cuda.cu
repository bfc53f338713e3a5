#include "kernels/core/block_reduce.h"
#include "kernels/tangent/sequence_embedding_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;

__global__ void LastTangentsKernel(Dual<float> states, float* out) {
  const int64_t tangent = blockIdx.y;
  const float* const last = states.tangent(tangent) + (states.rows - 1) * states.cols;
  for (int64_t c = GlobalThread(); c < states.cols; c += GlobalThreads()) out[tangent * states.cols + c] = last[c];
}

// A thread a column, its rows in order: each product is exact in f64.
__global__ void PositionSumsKernel(Dual<float> states, double* sums) {
  for (int64_t c = GlobalThread(); c < states.cols; c += GlobalThreads()) {
    double sum = 0;
    for (int64_t row = 0; row < states.rows; ++row) {
      sum += static_cast<double>(row + 1) * static_cast<double>(states.value()[row * states.cols + c]);
    }
    sums[c] = sum;
  }
}

// One block.
__global__ void __launch_bounds__(kThreads) NormaliseSumsKernel(const double* sums, int64_t cols, float* out) {
  double square = 0;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) square += sums[c] * sums[c];
  square = BlockReduce<kThreads>(square, Sum());
  const double scale = square > 0 ? 1 / sqrt(square) : 0;
  for (int64_t c = threadIdx.x; c < cols; c += kThreads) out[c] = static_cast<float>(sums[c] * scale);
}

}  // namespace

void LastTangentsCuda(const Dual<float>& states, float* out, Stream& stream) {
  if (states.tangents == 0 || states.cols == 0) return;
  Grid grid = ElementwiseGrid(states.cols);
  grid.blocks_y = states.tangents;
  Launch(stream, grid, LastTangentsKernel, states, out);
}

void PositionMeanCuda(const PositionMeanArgs& args, Stream& stream) {
  const int64_t cols = args.states.cols;
  if (cols == 0) return;
  Launch(stream, ElementwiseGrid(cols), PositionSumsKernel, args.states, args.sums);
  Launch(stream, RowGrid(1, kThreads), NormaliseSumsKernel, args.sums, cols, args.out);
}

}  // namespace trainyard::kernels::internal
