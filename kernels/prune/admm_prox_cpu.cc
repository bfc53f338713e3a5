#include <algorithm>

#include "kernels/prune/admm_prox_internal.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void Gap(const float* x, const float* s, int64_t count, float* gap) {
  for (int64_t i = 0; i < count; ++i) gap[i] = x[i] - s[i];
}

TY_SIMD void Gap(const float* x, const float* z, const float* u, int64_t count, float* gap) {
  for (int64_t i = 0; i < count; ++i) gap[i] = (x[i] - z[i]) + u[i];
}

TY_SIMD void Pull(const float* gap, int64_t count, float factor, float lambda, float* grad) {
  for (int64_t i = 0; i < count; ++i) grad[i] = PulledGradient(grad[i], factor, lambda, gap[i]);
}

}  // namespace

void AdmmProxCpu(const AdmmProxArgs& args, Stream& stream) {
  const float factor = args.gradient_factor ? *args.gradient_factor.as<float>() : 1.0f;
  stream.pool().ParallelFor(args.grad.size(), kPruneGrain, [&](int64_t range_begin, int64_t range_end) {
    alignas(64) float buffers[4][kPruneBlock];
    for (int64_t begin = range_begin; begin < range_end; begin += kPruneBlock) {
      const int64_t count = std::min(kPruneBlock, range_end - begin);
      const float* const x = LoadStored({args.x}, begin, count, buffers[0]);
      const float* const z = LoadStored(args.z, begin, count, buffers[1]);
      if (args.u) {
        Gap(x, z, LoadStored(args.u, begin, count, buffers[2]), count, buffers[3]);
      } else {
        Gap(x, z, count, buffers[3]);
      }
      Pull(buffers[3], count, factor, args.lambda, args.grad.as<float>() + begin);
    }
  });
}

}  // namespace trainyard::kernels::internal
