#include "kernels/optim/clip_weights_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kGrain = 8192;  // elements a thread takes at least

TY_SIMD void Clip(float limit, int64_t count, float* weight) {
  for (int64_t i = 0; i < count; ++i) weight[i] = ClippedWeight(weight[i], limit);
}

}  // namespace

void ClipWeightsCpu(const ClipWeightsArgs& args, Stream& stream) {
  float* const weight = args.weight.as<float>();
  stream.pool().ParallelFor(args.weight.size(), kGrain,
                            [&](int64_t begin, int64_t end) { Clip(args.limit, end - begin, weight + begin); });
}

}  // namespace trainyard::kernels::internal
