// A block walks along rows, neighbouring threads over neighbouring columns.
#include "kernels/core/launch.h"
#include "kernels/pointwise/interpolate_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    InterpolateKernel(const float* a, const float* x, const float* y, float* out, int64_t rows, int64_t cols) {
  for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
    const float share = a[r];
    for (int64_t i = r * cols + threadIdx.x; i < (r + 1) * cols; i += kThreads) out[i] = Between(share, x[i], y[i]);
  }
}

}  // namespace

void InterpolateCuda(const InterpolateArgs& args, Stream& stream) {
  const int64_t rows = args.a.size();
  Launch(stream, RowGrid(rows, kThreads), InterpolateKernel, args.a.as<float>(), args.x.as<float>(), args.y.as<float>(),
         args.out.as<float>(), rows, args.x.size() / rows);
}

}  // namespace trainyard::kernels::internal
