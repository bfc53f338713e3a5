#include "kernels/prune/admm_prox_internal.h"
#include "kernels/prune/stored_quads.h"

namespace trainyard::kernels::internal {
namespace {

__global__ void AdmmProxKernel(float* grad, QuadArray x, StoredQuads z, StoredQuads u, const float* gradient_factor,
                               float lambda, int64_t size, bool is_aligned) {
  const float factor = FactorOf(gradient_factor);
  const bool is_merged = u.values.data == nullptr;
  ForQuads(size, is_aligned, [&](const QuadPlace& place) {
    const RawQuad raw_grad = LoadWords(grad, place), raw_x = LoadQuad(x, place), raw_z = LoadQuad(z.values, place);
    const RawQuad raw_u = is_merged ? RawQuad{} : LoadQuad(u.values, place);
    Quad g = DecodeQuad(DType::kF32, raw_grad), gap = DecodeQuad(x.dtype, raw_x);
    const Quad copy = DecodeStored(z, raw_z);
    for (int j = 0; j < 4; ++j) gap.x[j] -= copy.x[j];
    if (!is_merged) {
      const Quad dual = DecodeStored(u, raw_u);
      for (int j = 0; j < 4; ++j) gap.x[j] += dual.x[j];
    }
    for (int j = 0; j < 4; ++j) g.x[j] = PulledGradient(g.x[j], factor, lambda, gap.x[j]);
    StoreFloats(g, place, grad);
  });
}

}  // namespace

void AdmmProxCuda(const AdmmProxArgs& args, Stream& stream) {
  const int64_t size = args.grad.size();
  if (size == 0) return;
  Launch(stream, ElementwiseGrid(size, 4), AdmmProxKernel, args.grad.as<float>(), QuadArray(args.x),
         StoredQuads(args.z), StoredQuads(args.u), FactorPointer(args.gradient_factor), args.lambda, size,
         HasAlignedQuads({args.grad, args.x, args.z.values, args.u.values}));
}

}  // namespace trainyard::kernels::internal
