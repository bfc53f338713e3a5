#include <algorithm>

#include "kernels/core/simd.h"
#include "kernels/optim/blocks.h"
#include "kernels/optim/sgd_internal.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void UpdateWithVelocity(const SgdConstants& constants, const float* grad, float grad_scale, int64_t count,
                                float* __restrict param, float* __restrict velocity) {
  const SgdConstants k = constants;
  for (int64_t i = 0; i < count; ++i) param[i] = SgdElement(k, grad[i] * grad_scale, param[i], velocity[i]);
}

TY_SIMD void UpdatePlain(const SgdConstants& constants, const float* grad, float grad_scale, int64_t count,
                         float* __restrict param) {
  const SgdConstants k = constants;
  for (int64_t i = 0; i < count; ++i) param[i] = PlainSgdElement(k, grad[i] * grad_scale, param[i]);
}

}  // namespace

void SgdCpu(const SgdArgs& args, Stream& stream) {
  const SgdConstants constants = SgdConstantsOf(args);
  const float grad_scale = args.grad_scale * (args.gradient_factor ? *args.gradient_factor.as<float>() : 1.0f);
  const BlockRounding rounding = {args.rounding, args.random, args.first_element};
  const TensorView& source = args.master ? args.master : args.param;
  stream.pool().ParallelFor(args.param.size(), kGrain, [&](int64_t range_begin, int64_t range_end) {
    alignas(64) float buffers[3][kBlock];
    for (int64_t begin = range_begin; begin < range_end; begin += kBlock) {
      const int64_t count = std::min(kBlock, range_end - begin);
      const float* grad = LoadBlock(args.grad, begin, count, buffers[0]);
      float* param = LoadBlock(source, begin, count, buffers[1]);
      if (args.velocity) {
        float* velocity = LoadBlock(args.velocity, begin, count, buffers[2]);
        UpdateWithVelocity(constants, grad, grad_scale, count, param, velocity);
        StoreBlock(velocity, rounding.For(kRandomRoundFirstMoment), begin, count, args.velocity);
      } else {
        UpdatePlain(constants, grad, grad_scale, count, param);
      }
      StoreBlock(param, args.master ? BlockRounding{} : rounding.For(kRandomRoundWeight), begin, count, args.param);
    }
  });
}

}  // namespace trainyard::kernels::internal
