#include "kernels/core/simd.h"
#include "kernels/optim/optimistic_adam.h"
#include "kernels/optim/optimistic_adam_formula.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kGrain = 8192;  // elements a thread takes at least

// `base` may be the weight itself: an element is read before it is written.
TY_SIMD void PlainSteps(const AdamConstants<float>& constants, float lr, const float* base, const float* gradient,
                        int64_t count, float* weight, float* __restrict m, float* __restrict v) {
  const AdamConstants<float> k = constants;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    weight[i] = PlainStep(base[i], lr, AdamDirection(k, gradient[i], m[i], v[i]));
  }
}

TY_SIMD void OptimisticSteps(const AdamConstants<float>& constants, float lr, const float* base, const float* gradient,
                             int64_t count, float* weight, float* __restrict m, float* __restrict v,
                             float* __restrict previous) {
  const AdamConstants<float> k = constants;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) {
    weight[i] = OptimisticStep(base[i], lr, AdamDirection(k, gradient[i], m[i], v[i]), previous[i]);
  }
}

}  // namespace

void OptimisticAdamCpu(const OptimisticAdamArgs& args, Stream& stream) {
  const auto constants = AdamConstants<float>::Of(static_cast<double>(args.beta1), static_cast<double>(args.beta2),
                                                  static_cast<double>(args.eps), args.step);
  const float* const base = args.base ? args.base.as<float>() : args.weight.as<float>();
  const float* const gradient = args.gradient.as<float>();
  float* const weight = args.weight.as<float>();
  float* const m = args.m.as<float>();
  float* const v = args.v.as<float>();
  float* const previous = args.previous ? args.previous.as<float>() : nullptr;
  stream.pool().ParallelFor(args.weight.size(), kGrain, [&](int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    if (previous == nullptr) {
      PlainSteps(constants, args.lr, base + begin, gradient + begin, count, weight + begin, m + begin, v + begin);
    } else {
      OptimisticSteps(constants, args.lr, base + begin, gradient + begin, count, weight + begin, m + begin, v + begin,
                      previous + begin);
    }
  });
}

}  // namespace trainyard::kernels::internal
