#include "kernels/optim/moving_average_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kGrain = 8192;  // elements a thread takes at least

TY_SIMD void Update(const float* x, float rate, int64_t count, float* __restrict average) {
  for (int64_t i = 0; i < count; ++i) average[i] = MovedAverage(average[i], x[i], rate);
}

}  // namespace

void MovingAverageCpu(const MovingAverageArgs& args, Stream& stream) {
  const float* const x = args.x.as<float>();
  float* const average = args.average.as<float>();
  stream.pool().ParallelFor(args.x.size(), kGrain, [&](int64_t begin, int64_t end) {
    Update(x + begin, args.rate, end - begin, average + begin);
  });
}

}  // namespace trainyard::kernels::internal
