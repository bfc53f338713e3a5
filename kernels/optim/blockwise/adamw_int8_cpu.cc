#include <algorithm>

#include "kernels/core/dtype.h"
#include "kernels/optim/blockwise/adamw_int8_internal.h"
#include "kernels/optim/blockwise/moment8.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kGrain = 32;  // blocks a thread takes at least

TY_SIMD void Update(const AdamWConstants<float>& constants, const float* grad, float factor, int64_t count,
                    float* __restrict param, float* __restrict m, float* __restrict v) {
  const AdamWConstants<float> k = constants;
  for (int64_t i = 0; i < count; ++i) {
    float divisor;
    param[i] = AdamWElement(k, grad[i] * factor, param[i], m[i], v[i], divisor);
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

TY_SIMD void Widen(const BFloat16* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = ToFloat(x[i]);
}

TY_SIMD void Narrow(const float* x, int64_t count, BFloat16* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<BFloat16>(x[i]);
}

void UpdateBlock(const AdamWInt8Args& args, const AdamWConstants<float>& constants, float factor, int64_t block) {
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
  Update(constants, args.grad.as<float>() + begin, factor, count, param, m, v);
  if (args.param.dtype() == DType::kBF16) {
    Narrow(param, count, args.param.as<BFloat16>() + begin);
  } else if (args.master) {
    std::copy_n(param, count, args.param.as<float>() + begin);
  }
  const float m_scale = LargestMagnitude(m, count), v_scale = LargestMagnitude(v, count);
  args.m_scale.as<float>()[block] = m_scale;
  args.v_scale.as<float>()[block] = v_scale;
  CodeFirst(m, count, InverseOfMomentScale(m_scale), args.m.as<uint8_t>() + begin);
  CodeSecond(v, count, InverseOfMomentScale(v_scale), args.v.as<uint8_t>() + begin);
}

}  // namespace

void AdamWInt8Cpu(const AdamWInt8Args& args, Stream& stream) {
  const AdamWConstants<float> constants = AdamWInt8Constants(args);
  const float factor = args.gradient_factor ? *args.gradient_factor.as<float>() : 1.0f;
  stream.pool().ParallelFor(Moment8Blocks(args.param.size()), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) UpdateBlock(args, constants, factor, block);
  });
}

}  // namespace trainyard::kernels::internal
