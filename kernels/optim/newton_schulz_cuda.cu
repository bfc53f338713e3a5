#include "kernels/optim/newton_schulz.h"
#include "kernels/optim/quads.h"

namespace trainyard::kernels::internal {
namespace {

__global__ void NormalizeByKernel(const float* x, const float* norm, int64_t size, bool is_aligned, QuadArray y) {
  const float scale = 1.0f / (*norm + 1e-7f);
  ForQuads(size, is_aligned, [&](const QuadPlace& place) {
    Quad quad = LoadFloats(x, place);
    for (int j = 0; j < 4; ++j) quad.x[j] *= scale;
    StoreQuad(quad, QuadRounding(), place, y);
  });
}

}  // namespace

void NormalizeByCuda(const TensorView& x, const TensorView& norm, const TensorView& y, Stream& stream) {
  if (x.size() == 0) return;
  Launch(stream, ElementwiseGrid(x.size(), 4), NormalizeByKernel, x.as<float>(), norm.as<float>(), x.size(),
         HasAlignedQuads({x, y}), QuadArray(y));
}

}  // namespace trainyard::kernels::internal
