// One block a row: it sums, then scales what it has just read, which the cache still holds.
#include <cmath>

#include "kernels/core/block_reduce.h"
#include "kernels/loss/gradient_penalty_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    GradientPenaltyKernel(float* gradient, float* deviations, int64_t rows, int64_t cols, double scale) {
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    float* const g = gradient + r * cols;
    double squares = 0;
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) {
      squares += static_cast<double>(g[c]) * static_cast<double>(g[c]);
    }
    const double norm = sqrt(BlockReduce<kThreads>(squares, Sum()));
    const float factor = PenaltyFactor(norm, scale);
    for (int64_t c = threadIdx.x; c < cols; c += kThreads) g[c] *= factor;
    if (threadIdx.x == 0) deviations[r] = static_cast<float>(norm - 1);
  }
}

}  // namespace

void GradientPenaltyCuda(const GradientPenaltyArgs& args, Stream& stream) {
  const int64_t rows = args.deviations.size();
  Launch(stream, RowGrid(rows, kThreads), GradientPenaltyKernel, args.gradient.as<float>(), args.deviations.as<float>(),
         rows, args.gradient.size() / rows, args.scale);
}

}  // namespace trainyard::kernels::internal
