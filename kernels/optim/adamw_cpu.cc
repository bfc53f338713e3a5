#include <algorithm>
#include <cmath>

#include "kernels/core/simd.h"
#include "kernels/optim/adamw.h"
#include "kernels/optim/blocks.h"

namespace trainyard::kernels::internal {
namespace {

struct Constants {
  float lr, beta1, beta2, eps, weight_decay;
  float grad_scale;
  float inverse_correction1, inverse_correction2;  // 1 / (1 - beta^step)
};

TY_SIMD void Update(const Constants& c, const float* grad, int64_t count, float* __restrict param, float* __restrict m,
                    float* __restrict v) {
  const Constants k = c;
  for (int64_t i = 0; i < count; ++i) {
    const float g = grad[i] * k.grad_scale;
    m[i] = k.beta1 * m[i] + (1.0f - k.beta1) * g;
    v[i] = k.beta2 * v[i] + (1.0f - k.beta2) * g * g;
    const float step = (m[i] * k.inverse_correction1) / (std::sqrt(v[i] * k.inverse_correction2) + k.eps);
    param[i] -= k.lr * (step + k.weight_decay * param[i]);
  }
}

}  // namespace

void AdamWCpu(const AdamWArgs& args, Stream& stream) {
  const double step = static_cast<double>(args.step);
  const Constants constants = {
      .lr = args.lr,
      .beta1 = args.beta1,
      .beta2 = args.beta2,
      .eps = args.eps,
      .weight_decay = args.weight_decay,
      .grad_scale = args.grad_scale * (args.gradient_factor ? *args.gradient_factor.as<float>() : 1.0f),
      .inverse_correction1 = static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(args.beta1), step))),
      .inverse_correction2 = static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(args.beta2), step))),
  };
  const BlockRounding rounding = {args.rounding, args.random, args.first_element};
  const TensorView& source = args.master ? args.master : args.param;
  stream.pool().ParallelFor(args.param.size(), kGrain, [&](int64_t range_begin, int64_t range_end) {
    alignas(64) float buffers[4][kBlock];
    for (int64_t begin = range_begin; begin < range_end; begin += kBlock) {
      const int64_t count = std::min(kBlock, range_end - begin);
      const float* grad = LoadBlock(args.grad, begin, count, buffers[0]);
      float* m = LoadBlock(args.m, begin, count, buffers[1]);
      float* v = LoadBlock(args.v, begin, count, buffers[2]);
      float* param = LoadBlock(source, begin, count, buffers[3]);
      Update(constants, grad, count, param, m, v);
      StoreBlock(m, rounding.For(kRandomRoundFirstMoment), begin, count, args.m);
      StoreBlock(v, rounding.For(kRandomRoundSecondMoment), begin, count, args.v);
      StoreBlock(param, args.master ? BlockRounding{} : rounding.For(kRandomRoundWeight), begin, count, args.param);
    }
  });
}

}  // namespace trainyard::kernels::internal
