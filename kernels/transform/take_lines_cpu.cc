#include <algorithm>
#include <cstring>

#include "kernels/core/simd.h"
#include "kernels/transform/take_lines.h"

namespace trainyard::kernels::internal {
namespace {

// Of one row. Reads x[0] where nothing is taken: cheaper than a branch.
TY_SIMD void TakeOfRow(const float* x, const int32_t* indices, int64_t count, float* __restrict y) {
  for (int64_t q = 0; q < count; ++q) {
    const int32_t index = indices[q];
    const float value = x[index < 0 ? 0 : index];
    y[q] = index < 0 ? 0.0f : value;
  }
}

}  // namespace

void TakeLinesCpu(const TakeLinesArgs& args, Stream& stream) {
  const float* x = args.x.as<float>();
  const int32_t* indices = args.indices.as<int32_t>();
  float* y = args.y.as<float>();
  const int64_t cols = args.x.dim(1);
  const int64_t taken_cols = args.y.dim(1);
  const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, taken_cols));
  stream.pool().ParallelFor(args.y.dim(0), grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (args.axis == 1) {
        TakeOfRow(x + i * cols, indices, taken_cols, y + i * taken_cols);
      } else if (indices[i] < 0) {
        std::fill_n(y + i * cols, cols, 0.0f);
      } else {
        std::memcpy(y + i * cols, x + indices[i] * cols, static_cast<size_t>(cols) * sizeof(float));
      }
    }
  });
}

}  // namespace trainyard::kernels::internal
