#include "kernels/optim/clip_weights_internal.h"
#include "kernels/optim/quads.h"

namespace trainyard::kernels::internal {
namespace {

__global__ void ClipWeightsKernel(float limit, int64_t size, bool is_aligned, float* weight) {
  ForQuads(size, is_aligned, [&](const QuadPlace& place) {
    Quad quad = LoadFloats(weight, place);
    for (int j = 0; j < 4; ++j) quad.x[j] = ClippedWeight(quad.x[j], limit);
    StoreFloats(quad, place, weight);
  });
}

}  // namespace

void ClipWeightsCuda(const ClipWeightsArgs& args, Stream& stream) {
  if (args.weight.size() == 0) return;
  Launch(stream, ElementwiseGrid(args.weight.size(), 4), ClipWeightsKernel, args.limit, args.weight.size(),
         HasAlignedQuads({args.weight}), args.weight.as<float>());
}

}  // namespace trainyard::kernels::internal
