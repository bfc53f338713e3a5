#include "kernels/optim/moving_average_internal.h"
#include "kernels/optim/quads.h"

namespace trainyard::kernels::internal {
namespace {

__global__ void MovingAverageKernel(const float* x, float rate, int64_t size, bool is_aligned, float* average) {
  ForQuads(size, is_aligned, [&](const QuadPlace& place) {
    const Quad value = LoadFloats(x, place);
    Quad next = LoadFloats(average, place);
    for (int j = 0; j < 4; ++j) next.x[j] = MovedAverage(next.x[j], value.x[j], rate);
    StoreFloats(next, place, average);
  });
}

}  // namespace

void MovingAverageCuda(const MovingAverageArgs& args, Stream& stream) {
  if (args.x.size() == 0) return;
  Launch(stream, ElementwiseGrid(args.x.size(), 4), MovingAverageKernel, args.x.as<float>(), args.rate, args.x.size(),
         HasAlignedQuads({args.x, args.average}), args.average.as<float>());
}

}  // namespace trainyard::kernels::internal
