#include "kernels/core/simd.h"
#include "kernels/optim/dual_averaging.h"
#include "kernels/optim/dual_averaging_formula.h"

namespace trainyard::kernels {
namespace internal {
namespace {

constexpr int64_t kGrain = 8192;  // elements a thread takes at least

TY_SIMD void Step(const float* anchor, const float* gradient, float eta, float gamma, int64_t count,
                  float* __restrict dual, float* __restrict weight) {
  for (int64_t i = 0; i < count; ++i) {
    DualAveragingElement(anchor[i], gradient[i], eta, gamma, dual[i], weight[i]);
  }
}

// The differences are taken in f64 of what the f32 step will store, but for its last rounding.
TY_SIMD double Drift(const float* dual, const float* gradient, double eta_before, double eta, int64_t count) {
  double lanes[kLanes] = {};
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double y = dual[i + lane];
      const double difference = eta_before * y - eta * (y - static_cast<double>(gradient[i + lane]));
      lanes[lane] += difference * difference;
    }
  }
  for (int64_t i = whole; i < count; ++i) {
    const double y = dual[i];
    const double difference = eta_before * y - eta * (y - static_cast<double>(gradient[i]));
    lanes[i - whole] += difference * difference;
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

}  // namespace internal

double DualDrift(const DualDriftArgs& args) {
  TY_CHECK_EQ(args.dual.size(), args.gradient.size());
  return internal::Drift(args.dual.as<float>(), args.gradient.as<float>(), static_cast<double>(args.eta_before),
                         static_cast<double>(args.eta), args.dual.size());
}

}  // namespace trainyard::kernels
