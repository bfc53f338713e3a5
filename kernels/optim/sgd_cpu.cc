#include <algorithm>

#include "kernels/core/simd.h"
#include "kernels/optim/blocks.h"
#include "kernels/optim/sgd.h"

namespace trainyard::kernels::internal {
namespace {

struct Constants {
  float lr, momentum, weight_decay, grad_scale;
  float gradient_share, velocity_share;  // the step is gradient_share * g' + velocity_share * u
};

TY_SIMD void UpdateWithVelocity(const Constants& c, const float* grad, int64_t count, float* __restrict param,
                                float* __restrict velocity) {
  const Constants k = c;
  for (int64_t i = 0; i < count; ++i) {
    const float g = grad[i] * k.grad_scale + k.weight_decay * param[i];
    velocity[i] = k.momentum * velocity[i] + g;
    param[i] -= k.lr * (k.gradient_share * g + k.velocity_share * velocity[i]);
  }
}

TY_SIMD void UpdatePlain(const Constants& c, const float* grad, int64_t count, float* __restrict param) {
  const Constants k = c;
  for (int64_t i = 0; i < count; ++i) param[i] -= k.lr * (grad[i] * k.grad_scale + k.weight_decay * param[i]);
}

}  // namespace

void SgdCpu(const SgdArgs& args, Stream& stream) {
  const Constants constants = {
      .lr = args.lr,
      .momentum = args.momentum,
      .weight_decay = args.weight_decay,
      .grad_scale = args.grad_scale * (args.gradient_factor ? *args.gradient_factor.as<float>() : 1.0f),
      .gradient_share = args.nesterov ? 1.0f : 0.0f,
      .velocity_share = args.nesterov ? args.momentum : 1.0f,
  };
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
        UpdateWithVelocity(constants, grad, count, param, velocity);
        StoreBlock(velocity, rounding.For(kRandomRoundFirstMoment), begin, count, args.velocity);
      } else {
        UpdatePlain(constants, grad, count, param);
      }
      StoreBlock(param, args.master ? BlockRounding{} : rounding.For(kRandomRoundWeight), begin, count, args.param);
    }
  });
}

}  // namespace trainyard::kernels::internal
