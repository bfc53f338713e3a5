#include <algorithm>

#include "kernels/quant/abs_max_internal.h"
#include "kernels/quant/largest_magnitude.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kChunk = 16384;

}  // namespace

void AbsMaxCpu(const AbsMaxArgs& args, Stream& stream) {
  if (args.y.size() == 1) {
    LargestMagnitude largest(args.y);
    stream.pool().ParallelFor(args.x.size(), kChunk,
                              [&](int64_t begin, int64_t end) { largest.Add(args.x, begin, end - begin); });
    largest.Finish();
    return;
  }
  float* y = args.y.as<float>();
  const int64_t cols = args.x.dim(1);
  const int64_t grain = std::max<int64_t>(1, kChunk / std::max<int64_t>(1, cols));
  stream.pool().ParallelFor(args.x.dim(0), grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      y[row] = __builtin_bit_cast(float, LargestMagnitudeBits(args.x, row * cols, cols));
    }
  });
}

}  // namespace trainyard::kernels::internal
