#include <algorithm>
#include <cmath>

#include "kernels/core/dtype.h"
#include "kernels/optim/blockwise/adamw_int8.h"
#include "kernels/optim/blockwise/moment8.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kGrain = 32;  // blocks a thread takes at least

struct Constants {
  float lr, beta1, beta2, eps, weight_decay, factor;
  float inverse_correction1, inverse_correction2;  // 1 / (1 - beta^step)
};

TY_SIMD void Update(const Constants& c, const float* grad, int64_t count, float* __restrict param, float* __restrict m,
                    float* __restrict v) {
  const Constants k = c;
  for (int64_t i = 0; i < count; ++i) {
    const float g = grad[i] * k.factor;
    m[i] = k.beta1 * m[i] + (1.0f - k.beta1) * g;
    v[i] = k.beta2 * v[i] + (1.0f - k.beta2) * g * g;
    const float step = (m[i] * k.inverse_correction1) / (std::sqrt(v[i] * k.inverse_correction2) + k.eps);
    param[i] -= k.lr * (step + k.weight_decay * param[i]);
  }
}

TY_SIMD float LargestMagnitude(const float* x, int64_t count) {
  float largest = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    const float magnitude = x[i] < 0.0f ? -x[i] : x[i];
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

TY_SIMD void CodeFirst(const float* x, int64_t count, float inverse_scale, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) codes[i] = FirstMomentCode(x[i], inverse_scale);
}

TY_SIMD void CodeSecond(const float* x, int64_t count, float inverse_scale, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) codes[i] = SecondMomentCode(x[i], inverse_scale);
}

// A block whose largest value has no finite inverse is stored as zeros.
float InverseOf(float scale) {
  return scale > 1e-38f ? 1.0f / scale : 0.0f;
}

TY_SIMD void Widen(const BFloat16* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = ToFloat(x[i]);
}

TY_SIMD void Narrow(const float* x, int64_t count, BFloat16* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<BFloat16>(x[i]);
}

void UpdateBlock(const AdamWInt8Args& args, const Constants& constants, int64_t block) {
  alignas(64) float m[kMoment8Block], v[kMoment8Block], buffer[kMoment8Block];
  const int64_t begin = block * kMoment8Block;
  const int64_t count = std::min(kMoment8Block, args.param.size() - begin);
  const TensorView& leading = args.master ? args.master : args.param;
  float* param = buffer;
  if (leading.dtype() == DType::kF32) {
    param = leading.as<float>() + begin;
  } else {
    Widen(leading.as<BFloat16>() + begin, count, buffer);
  }
  LoadFirstMoments8(args.m, args.m_scale, begin, count, m);
  LoadSecondMoments8(args.v, args.v_scale, begin, count, v);
  Update(constants, args.grad.as<float>() + begin, count, param, m, v);
  if (args.param.dtype() == DType::kBF16) {
    Narrow(param, count, args.param.as<BFloat16>() + begin);
  } else if (args.master) {
    std::copy_n(param, count, args.param.as<float>() + begin);
  }
  const float m_scale = LargestMagnitude(m, count), v_scale = LargestMagnitude(v, count);
  args.m_scale.as<float>()[block] = m_scale;
  args.v_scale.as<float>()[block] = v_scale;
  CodeFirst(m, count, InverseOf(m_scale), args.m.as<uint8_t>() + begin);
  CodeSecond(v, count, InverseOf(v_scale), args.v.as<uint8_t>() + begin);
}

}  // namespace

void AdamWInt8Cpu(const AdamWInt8Args& args, Stream& stream) {
  const double step = static_cast<double>(args.step);
  const Constants constants = {
      .lr = args.lr,
      .beta1 = args.beta1,
      .beta2 = args.beta2,
      .eps = args.eps,
      .weight_decay = args.weight_decay,
      .factor = args.gradient_factor ? *args.gradient_factor.as<float>() : 1.0f,
      .inverse_correction1 = static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(args.beta1), step))),
      .inverse_correction2 = static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(args.beta2), step))),
  };
  stream.pool().ParallelFor(Moment8Blocks(args.param.size()), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) UpdateBlock(args, constants, block);
  });
}

}  // namespace trainyard::kernels::internal
