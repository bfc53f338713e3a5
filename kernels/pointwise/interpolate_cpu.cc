#include "kernels/pointwise/interpolate_internal.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void InterpolateRow(float a, const float* x, const float* y, int64_t cols, float* out) {
  for (int64_t c = 0; c < cols; ++c) out[c] = Between(a, x[c], y[c]);
}

}  // namespace

void InterpolateCpu(const InterpolateArgs& args, Stream& stream) {
  const int64_t rows = args.a.size(), cols = args.x.size() / rows;
  stream.pool().ParallelFor(rows, 1 + 8192 / cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      InterpolateRow(args.a.as<float>()[r], args.x.as<float>() + r * cols, args.y.as<float>() + r * cols, cols,
                     args.out.as<float>() + r * cols);
    }
  });
}

}  // namespace trainyard::kernels::internal
