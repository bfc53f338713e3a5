#include "kernels/optim/low_rank_adam_internal.h"
#include "kernels/optim/quads.h"

namespace trainyard::kernels::internal {
namespace {

__global__ void LowRankAdamKernel(AdamWConstants<float> k, const float* gradient_factor, int64_t size, bool is_aligned,
                                  float* a, float* m, float* v) {
  const float factor = FactorOf(gradient_factor);
  ForQuads(size, is_aligned, [&](const QuadPlace& place) {
    Quad quad = LoadFloats(a, place), first = LoadFloats(m, place), second = LoadFloats(v, place);
    for (int j = 0; j < 4; ++j) {
      float divisor;
      quad.x[j] = AdamWDirection(k, quad.x[j] * factor, first.x[j], second.x[j], divisor);
    }
    StoreFloats(quad, place, a);
    StoreFloats(first, place, m);
    StoreFloats(second, place, v);
  });
}

}  // namespace

void LowRankAdamCuda(const LowRankAdamArgs& args, Stream& stream) {
  if (args.a.size() == 0) return;
  Launch(stream, ElementwiseGrid(args.a.size(), 4), LowRankAdamKernel, LowRankAdamConstants(args),
         FactorPointer(args.gradient_factor), args.a.size(), HasAlignedQuads({args.a, args.m, args.v}),
         args.a.as<float>(), args.m.as<float>(), args.v.as<float>());
}

}  // namespace trainyard::kernels::internal
