#include "kernels/core/simd.h"
#include "kernels/optim/blocks.h"
#include "kernels/optim/low_rank_adam_internal.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void Directions(const AdamWConstants<float>& constants, float factor, int64_t count, float* __restrict a,
                        float* __restrict m, float* __restrict v) {
  const AdamWConstants<float> k = constants;
  for (int64_t i = 0; i < count; ++i) {
    float divisor;
    a[i] = AdamWDirection(k, a[i] * factor, m[i], v[i], divisor);
  }
}

}  // namespace

void LowRankAdamCpu(const LowRankAdamArgs& args, Stream& stream) {
  const AdamWConstants<float> constants = LowRankAdamConstants(args);
  const float factor = args.gradient_factor ? *args.gradient_factor.as<float>() : 1.0f;
  float* a = args.a.as<float>();
  float* m = args.m.as<float>();
  float* v = args.v.as<float>();
  stream.pool().ParallelFor(args.a.size(), kGrain, [&](int64_t begin, int64_t end) {
    Directions(constants, factor, end - begin, a + begin, m + begin, v + begin);
  });
}

}  // namespace trainyard::kernels::internal
