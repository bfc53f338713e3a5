#include <algorithm>

#include "kernels/optim/dual_averaging_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kGrain = 8192;  // elements a thread takes at least

TY_SIMD void Step(const float* anchor, const float* gradient, float eta, float gamma, int64_t count,
                  float* __restrict dual, float* __restrict weight) {
  for (int64_t i = 0; i < count; ++i) {
    DualAveragingElement(anchor[i], gradient[i], eta, gamma, dual[i], weight[i]);
  }
}

TY_SIMD double Drift(const float* dual, const float* gradient, double eta_before, double eta, int64_t count) {
  double lanes[kLanes] = {};
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double way = DriftOf(dual[i + lane], gradient[i + lane], eta_before, eta);
      lanes[lane] += way * way;
    }
  }
  for (int64_t i = whole; i < count; ++i) {
    const double way = DriftOf(dual[i], gradient[i], eta_before, eta);
    lanes[i - whole] += way * way;
  }
  double sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

}  // namespace

void DualAveragingCpu(const DualAveragingArgs& args, Stream& stream) {
  const float* const anchor = args.anchor.as<float>();
  const float* const gradient = args.gradient.as<float>();
  float* const dual = args.dual.as<float>();
  float* const weight = args.weight.as<float>();
  stream.pool().ParallelFor(args.weight.size(), kGrain, [&](int64_t begin, int64_t end) {
    Step(anchor + begin, gradient + begin, args.eta, args.gamma, end - begin, dual + begin, weight + begin);
  });
}

void DualDriftCpu(const DualDriftArgs& args, Stream& stream) {
  const float* const dual = args.dual.as<float>();
  const float* const gradient = args.gradient.as<float>();
  const double eta_before = static_cast<double>(args.eta_before), eta = static_cast<double>(args.eta);
  double* const partials = static_cast<double*>(args.workspace.data());
  const int64_t size = args.dual.size();
  const int64_t blocks = DriftBlocks(size);
  stream.pool().ParallelFor(blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i * kDriftBlock;
      partials[i] = Drift(dual + begin, gradient + begin, eta_before, eta, std::min(kDriftBlock, size - begin));
    }
  });
  double sum = 0;
  for (int64_t i = 0; i < blocks; ++i) sum += partials[i];
  *static_cast<double*>(args.drift.data()) = sum;
}

}  // namespace trainyard::kernels::internal
