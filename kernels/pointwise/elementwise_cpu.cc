#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/pointwise/elementwise_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kGrain = 16384;  // elements a hand-out

// One loop a dtype (or pair) and operation: target clones cannot be templates.
template <typename T>
TY_INLINE void AddLoop(const T* a, const T* b, T* y, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<T>(ToFloat(a[i]) + ToFloat(b[i]));
}
TY_SIMD void AddRange(const float* a, const float* b, float* y, int64_t count) {
  AddLoop(a, b, y, count);
}
TY_SIMD void AddRangeBF16(const BFloat16* a, const BFloat16* b, BFloat16* y, int64_t count) {
  AddLoop(a, b, y, count);
}

template <typename T>
TY_INLINE void ScaleLoop(const T* x, T* y, float scale, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<T>(ToFloat(x[i]) * scale);
}
TY_SIMD void ScaleRange(const float* x, float* y, float scale, int64_t count) {
  ScaleLoop(x, y, scale, count);
}
TY_SIMD void ScaleRangeBF16(const BFloat16* x, BFloat16* y, float scale, int64_t count) {
  ScaleLoop(x, y, scale, count);
}

template <typename X, typename Y>
TY_INLINE void AccumulateLoop(const X* x, Y* y, float scale, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<Y>(ToFloat(y[i]) + ToFloat(x[i]) * scale);
}
TY_SIMD void AccumulateF32ToF32(const float* x, float* y, float scale, int64_t count) {
  AccumulateLoop(x, y, scale, count);
}
TY_SIMD void AccumulateF32ToBF16(const float* x, BFloat16* y, float scale, int64_t count) {
  AccumulateLoop(x, y, scale, count);
}
TY_SIMD void AccumulateBF16ToF32(const BFloat16* x, float* y, float scale, int64_t count) {
  AccumulateLoop(x, y, scale, count);
}
TY_SIMD void AccumulateBF16ToBF16(const BFloat16* x, BFloat16* y, float scale, int64_t count) {
  AccumulateLoop(x, y, scale, count);
}

TY_SIMD void WidenRange(const BFloat16* x, float* y, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = ToFloat(x[i]);
}
TY_SIMD void NarrowRange(const float* x, BFloat16* y, int64_t count) {
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<BFloat16>(x[i]);
}

// Column sums over blocks of rows in float, the blocks added in order: errors grow with the blocks, not the rows.
constexpr int64_t kBlockRows = 64;
constexpr int64_t kBlockCols = 128;

template <typename T, typename B>
TY_INLINE void ColumnSums(const T* dy, B* db, int64_t rows, int64_t stride, int64_t cols, bool accumulate) {
  float total[kBlockCols];
  float block[kBlockCols];
  for (int64_t c = 0; c < cols; ++c) total[c] = 0;
  for (int64_t first = 0; first < rows; first += kBlockRows) {
    const int64_t last = std::min(rows, first + kBlockRows);
    for (int64_t c = 0; c < cols; ++c) block[c] = 0;
    for (int64_t r = first; r < last; ++r) {
      for (int64_t c = 0; c < cols; ++c) block[c] += ToFloat(dy[r * stride + c]);
    }
    for (int64_t c = 0; c < cols; ++c) total[c] += block[c];
  }
  for (int64_t c = 0; c < cols; ++c) db[c] = FromFloat<B>(accumulate ? ToFloat(db[c]) + total[c] : total[c]);
}

TY_SIMD void ColumnSumsF32(const float* dy, float* db, int64_t rows, int64_t stride, int64_t cols, bool accumulate) {
  ColumnSums(dy, db, rows, stride, cols, accumulate);
}
TY_SIMD void ColumnSumsBF16(const BFloat16* dy, BFloat16* db, int64_t rows, int64_t stride, int64_t cols,
                            bool accumulate) {
  ColumnSums(dy, db, rows, stride, cols, accumulate);
}
TY_SIMD void ColumnSumsBF16ToF32(const BFloat16* dy, float* db, int64_t rows, int64_t stride, int64_t cols,
                                 bool accumulate) {
  ColumnSums(dy, db, rows, stride, cols, accumulate);
}

}  // namespace

void AddCpu(const AddArgs& args, Stream& stream) {
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* a = args.a.as<T>();
    const T* b = args.b.as<T>();
    T* y = args.y.as<T>();
    stream.pool().ParallelFor(args.y.size(), kGrain, [&](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<T, float>) {
        AddRange(a + begin, b + begin, y + begin, end - begin);
      } else {
        AddRangeBF16(a + begin, b + begin, y + begin, end - begin);
      }
    });
  });
}

void ScaleCpu(const ScaleArgs& args, Stream& stream) {
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = args.x.as<T>();
    T* y = args.y.as<T>();
    stream.pool().ParallelFor(args.y.size(), kGrain, [&](int64_t begin, int64_t end) {
      if constexpr (std::is_same_v<T, float>) {
        ScaleRange(x + begin, y + begin, args.scale, end - begin);
      } else {
        ScaleRangeBF16(x + begin, y + begin, args.scale, end - begin);
      }
    });
  });
}

void AccumulateCpu(const AccumulateArgs& args, Stream& stream) {
  const auto run = [&](auto loop, auto* x, auto* y) {
    stream.pool().ParallelFor(args.y.size(), kGrain,
                              [&](int64_t begin, int64_t end) { loop(x + begin, y + begin, args.scale, end - begin); });
  };
  const bool from_f32 = args.x.dtype() == DType::kF32;
  if (args.y.dtype() == DType::kF32) {
    if (from_f32) return run(AccumulateF32ToF32, args.x.as<float>(), args.y.as<float>());
    return run(AccumulateBF16ToF32, args.x.as<BFloat16>(), args.y.as<float>());
  }
  if (from_f32) return run(AccumulateF32ToBF16, args.x.as<float>(), args.y.as<BFloat16>());
  run(AccumulateBF16ToBF16, args.x.as<BFloat16>(), args.y.as<BFloat16>());
}

void FillCpu(const FillArgs& args, Stream& stream) {
  if (args.value == 0) {  // all bits zero in every dtype
    char* y = static_cast<char*>(args.y.data());
    stream.pool().ParallelFor(args.y.bytes(), 4 * kGrain,
                              [&](int64_t begin, int64_t end) { std::fill(y + begin, y + end, char{0}); });
    return;
  }
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* y = args.y.as<T>();
    stream.pool().ParallelFor(args.y.size(), kGrain, [&](int64_t begin, int64_t end) {
      std::fill(y + begin, y + end, FromFloat<T>(args.value));
    });
  });
}

void ConvertCpu(const ConvertArgs& args, Stream& stream) {
  if (args.x.dtype() == args.y.dtype()) {
    if (args.x.data() == args.y.data()) return;
    const char* x = static_cast<const char*>(args.x.data());
    char* y = static_cast<char*>(args.y.data());
    stream.pool().ParallelFor(args.y.bytes(), 4 * kGrain, [&](int64_t begin, int64_t end) {
      std::memcpy(y + begin, x + begin, static_cast<size_t>(end - begin));
    });
    return;
  }
  if (args.y.dtype() == DType::kF32) {
    const BFloat16* x = args.x.as<BFloat16>();
    float* y = args.y.as<float>();
    stream.pool().ParallelFor(args.y.size(), kGrain,
                              [&](int64_t begin, int64_t end) { WidenRange(x + begin, y + begin, end - begin); });
    return;
  }
  const float* x = args.x.as<float>();
  BFloat16* y = args.y.as<BFloat16>();
  stream.pool().ParallelFor(args.y.size(), kGrain,
                            [&](int64_t begin, int64_t end) { NarrowRange(x + begin, y + begin, end - begin); });
}

void BiasGradientCpu(const BiasGradientArgs& args, Stream& stream) {
  const int64_t rows = args.dy.dim(0);
  const int64_t stride = args.dy.dim(1);
  const auto run = [&](auto sums, auto* dy, auto* db) {
    const int64_t blocks = (stride + kBlockCols - 1) / kBlockCols;
    stream.pool().ParallelFor(blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin * kBlockCols; c < std::min(stride, end * kBlockCols); c += kBlockCols) {
        sums(dy + c, db + c, rows, stride, std::min(kBlockCols, stride - c), args.accumulate);
      }
    });
  };
  if (args.dy.dtype() == DType::kF32) return run(ColumnSumsF32, args.dy.as<float>(), args.db.as<float>());
  if (args.db.dtype() == DType::kF32) return run(ColumnSumsBF16ToF32, args.dy.as<BFloat16>(), args.db.as<float>());
  run(ColumnSumsBF16, args.dy.as<BFloat16>(), args.db.as<BFloat16>());
}

}  // namespace trainyard::kernels::internal
