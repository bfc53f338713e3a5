#include "kernels/optim/dual_averaging_internal.h"
#include "kernels/optim/quads.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256, kFinishThreads = 1024;

__global__ void DualAveragingKernel(const float* anchor, const float* gradient, float eta, float gamma, int64_t size,
                                    bool is_aligned, float* dual, float* weight) {
  ForQuads(size, is_aligned, [&](const QuadPlace& place) {
    const Quad start = LoadFloats(anchor, place), g = LoadFloats(gradient, place);
    Quad sum = LoadFloats(dual, place), point;
    for (int j = 0; j < 4; ++j) DualAveragingElement(start.x[j], g.x[j], eta, gamma, sum.x[j], point.x[j]);
    StoreFloats(sum, place, dual);
    StoreFloats(point, place, weight);
  });
}

__global__ void PartialDriftKernel(const float* dual, const float* gradient, double eta_before, double eta,
                                   int64_t size, int64_t blocks, bool is_aligned, double* partials) {
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t begin = block * kDriftBlock;
    const int64_t end = begin + kDriftBlock < size ? begin + kDriftBlock : size;
    double sums[4] = {};
    for (int64_t at = begin + int64_t{threadIdx.x} * 4; at < end; at += kThreads * 4) {
      const QuadPlace place(at, end, is_aligned);
      const Quad y = LoadFloats(dual, place), g = LoadFloats(gradient, place);  // 0 behind the end
      for (int j = 0; j < 4; ++j) {
        const double way = DriftOf(y.x[j], g.x[j], eta_before, eta);
        sums[j] = fma(way, way, sums[j]);
      }
    }
    const double sum = BlockReduce<kThreads>((sums[0] + sums[1]) + (sums[2] + sums[3]), Sum());
    if (threadIdx.x == 0) partials[block] = sum;
  }
}

__global__ void FinishDriftKernel(const double* partials, int64_t count, double* drift) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kFinishThreads) sum += partials[i];
  sum = BlockReduce<kFinishThreads>(sum, Sum());
  if (threadIdx.x == 0) *drift = sum;
}

}  // namespace

void DualAveragingCuda(const DualAveragingArgs& args, Stream& stream) {
  const int64_t size = args.weight.size();
  if (size == 0) return;
  Launch(stream, ElementwiseGrid(size, 4), DualAveragingKernel, args.anchor.as<float>(), args.gradient.as<float>(),
         args.eta, args.gamma, size, HasAlignedQuads({args.anchor, args.gradient, args.dual, args.weight}),
         args.dual.as<float>(), args.weight.as<float>());
}

void DualDriftCuda(const DualDriftArgs& args, Stream& stream) {
  const int64_t size = args.dual.size(), blocks = DriftBlocks(size);
  double* const partials = static_cast<double*>(args.workspace.data());
  if (blocks > 0) {
    Launch(stream, RowGrid(blocks, kThreads), PartialDriftKernel, args.dual.as<float>(), args.gradient.as<float>(),
           args.eta_before, args.eta, size, blocks, HasAlignedQuads({args.dual, args.gradient}), partials);
  }
  Launch(stream, {.threads = kFinishThreads}, FinishDriftKernel, partials, blocks,
         static_cast<double*>(args.drift.data()));
}

}  // namespace trainyard::kernels::internal
