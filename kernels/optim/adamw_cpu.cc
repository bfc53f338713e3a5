#include <algorithm>

#include "kernels/core/simd.h"
#include "kernels/optim/adamw_internal.h"
#include "kernels/optim/blocks.h"

namespace trainyard::kernels::internal {
namespace {

static_assert(kMomentGroup == kScaleGroup);

TY_SIMD void Update(const AdamWConstants<float>& constants, const float* grad, float grad_scale, int64_t count,
                    float* __restrict param, float* __restrict m, float* __restrict v) {
  const AdamWConstants<float> k = constants;
  for (int64_t i = 0; i < count; ++i) {
    float divisor;
    param[i] = AdamWElement(k, grad[i] * grad_scale, param[i], m[i], v[i], divisor);
  }
}

}  // namespace

void AdamWCpu(const AdamWArgs& args, Stream& stream) {
  const AdamWConstants<float> constants = AdamWConstantsOf(args);
  const float grad_scale = args.grad_scale * (args.gradient_factor ? *args.gradient_factor.as<float>() : 1.0f);
  const BlockRounding rounding = {args.rounding, args.random, args.first_element};
  const TensorView& source = args.master ? args.master : args.param;
  stream.pool().ParallelFor(args.param.size(), kGrain, [&](int64_t range_begin, int64_t range_end) {
    alignas(64) float buffers[4][kBlock];
    for (int64_t begin = range_begin; begin < range_end; begin += kBlock) {
      const int64_t count = std::min(kBlock, range_end - begin);
      const float* grad = LoadBlock(args.grad, begin, count, buffers[0]);
      float* m = args.m_scales ? LoadScaledBlock(args.m, args.m_scales, begin, count, buffers[1])
                               : LoadBlock(args.m, begin, count, buffers[1]);
      float* v = LoadBlock(args.v, begin, count, buffers[2]);
      float* param = LoadBlock(source, begin, count, buffers[3]);
      Update(constants, grad, grad_scale, count, param, m, v);
      if (args.m_scales) {
        StoreScaledBlock(m, rounding.For(kRandomRoundFirstMoment), begin, count, args.m, args.m_scales);
      } else {
        StoreBlock(m, rounding.For(kRandomRoundFirstMoment), begin, count, args.m);
      }
      StoreBlock(v, rounding.For(kRandomRoundSecondMoment), begin, count, args.v);
      StoreBlock(param, args.master ? BlockRounding{} : rounding.For(kRandomRoundWeight), begin, count, args.param);
    }
  });
}

}  // namespace trainyard::kernels::internal
