#include <algorithm>
#include <cstring>

#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/transform/take_lines.h"

namespace trainyard::kernels::internal {
namespace {

// Of one row. Reads x[0] where nothing is taken: cheaper than a branch.
template <typename T>
TY_INLINE void Take(const T* x, const int32_t* indices, int64_t count, T* __restrict y) {
  for (int64_t q = 0; q < count; ++q) {
    const int32_t index = indices[q];
    const T value = x[index < 0 ? 0 : index];
    y[q] = index < 0 ? T{} : value;
  }
}

TY_SIMD void TakeOfRow(const float* x, const int32_t* indices, int64_t count, float* __restrict y) {
  Take(x, indices, count, y);
}
TY_SIMD void TakeOfRow(const BFloat16* x, const int32_t* indices, int64_t count, BFloat16* __restrict y) {
  Take(x, indices, count, y);
}

}  // namespace

void TakeLinesCpu(const TakeLinesArgs& args, Stream& stream) {
  const int32_t* indices = args.indices.as<int32_t>();
  const int64_t cols = args.x.dim(1);
  const int64_t taken_cols = args.y.dim(1);
  const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(1, taken_cols));
  DispatchFloat(args.x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = args.x.as<T>();
    T* y = args.y.as<T>();
    stream.pool().ParallelFor(args.y.dim(0), grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (args.axis == 1) {
          TakeOfRow(x + i * cols, indices, taken_cols, y + i * taken_cols);
        } else if (indices[i] < 0) {
          std::fill_n(y + i * cols, cols, T{});
        } else {
          std::memcpy(y + i * cols, x + indices[i] * cols, static_cast<size_t>(cols) * sizeof(T));
        }
      }
    });
  });
}

}  // namespace trainyard::kernels::internal
