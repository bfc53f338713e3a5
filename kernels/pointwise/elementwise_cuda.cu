#include "kernels/core/dispatch.h"
#include "kernels/core/map.h"
#include "kernels/pointwise/elementwise_internal.h"

namespace trainyard::kernels::internal {
namespace {

struct Added {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Scaled {
  float scale;
  __device__ float operator()(float x) const { return x * scale; }
};
struct Accumulated {
  float scale;
  __device__ float operator()(float y, float x) const { return y + x * scale; }
};
struct Constant {
  float value;
  __device__ float operator()() const { return value; }
};
struct Same {
  __device__ float operator()(float x) const { return x; }
};

// y = x, byte for byte; zeros if x is null.
template <int kWidth>
__global__ void CopyBytesKernel(const uint8_t* x, uint8_t* y, int64_t bytes) {
  const int64_t vectors = bytes / kWidth;
  for (int64_t v = GlobalThread(); v < vectors; v += GlobalThreads()) {
    StoreVec(y + v * kWidth, x == nullptr ? Vec<uint8_t, kWidth>{} : LoadVec<kWidth>(x + v * kWidth));
  }
  const int64_t i = vectors * kWidth + GlobalThread();
  if (kWidth > 1 && i < bytes) y[i] = x == nullptr ? uint8_t{0} : x[i];
}

void CopyBytes(Stream& stream, const void* x, void* y, int64_t bytes) {
  if (bytes == 0) return;
  constexpr int kWidth = kVecWidth<uint8_t>;
  const uint8_t* const from = static_cast<const uint8_t*>(x);
  uint8_t* const to = static_cast<uint8_t*>(y);
  const bool aligned = AllVecAligned(from, to);
  Launch(stream, ElementwiseGrid(bytes, aligned ? kWidth : 1), aligned ? CopyBytesKernel<kWidth> : CopyBytesKernel<1>,
         from, to, bytes);
}

// A block sums a strip of kLanes * kWidth columns: 32 bytes of a row, what memory moves at least. Its threads are
// kLanes side by side and kThreads / kLanes rows.
constexpr int kSumThreads = 1024;

template <typename T, typename B, int kWidth, int kLanes>
__global__ void __launch_bounds__(kSumThreads)
    ColumnSumsKernel(const T* dy, B* db, int64_t rows, int64_t cols, bool accumulate) {
  constexpr int kStrip = kLanes * kWidth;
  constexpr int kWarps = kSumThreads / 32;
  __shared__ float partials[kWarps][kStrip];
  const int self = static_cast<int>(threadIdx.x);
  const int lane = self % kLanes;
  const int64_t c = int64_t{blockIdx.x} * kStrip + lane * kWidth;

  Vec<float, kWidth> sums = {};
  if (c < cols) {
    TY_UNROLL_BY(4)
    for (int64_t r = self / kLanes; r < rows; r += kSumThreads / kLanes) {
      const Vec<float, kWidth> row = Widen(LoadVec<kWidth>(dy + r * cols + c));
      TY_UNROLL
      for (int e = 0; e < kWidth; ++e) sums[e] += row[e];
    }
  }
  // The rows of a warp, then the warps: always the same tree.
  TY_UNROLL
  for (int e = 0; e < kWidth; ++e) {
    TY_UNROLL
    for (int offset = 16; offset >= kLanes; offset /= 2) {
      sums[e] += __shfl_xor_sync(0xFFFFFFFFu, sums[e], offset);
    }
  }
  if (self % 32 < kLanes) {
    TY_UNROLL
    for (int e = 0; e < kWidth; ++e) partials[self / 32][lane * kWidth + e] = sums[e];
  }
  __syncthreads();
  const int64_t column = int64_t{blockIdx.x} * kStrip + self;
  if (self >= kStrip || column >= cols) return;
  float total = 0;
  for (int warp = 0; warp < kWarps; ++warp) total += partials[warp][self];
  db[column] = FromFloat<B>(accumulate ? ToFloat(db[column]) + total : total);
}

template <typename T, typename B>
void ColumnSums(Stream& stream, const T* dy, B* db, int64_t rows, int64_t cols, bool accumulate) {
  if (cols == 0) return;
  constexpr int kWidth = kVecWidth<T>;
  constexpr int kStrip = 32 / sizeof(T);
  const bool vectors = cols % kWidth == 0 && AllVecAligned(dy);
  Launch(stream, {.blocks = (cols + kStrip - 1) / kStrip, .threads = kSumThreads},
         vectors ? ColumnSumsKernel<T, B, kWidth, kStrip / kWidth> : ColumnSumsKernel<T, B, 1, kStrip>, dy, db, rows,
         cols, accumulate);
}

}  // namespace

void AddCuda(const AddArgs& args, Stream& stream) {
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Map(stream, Added{}, args.y.size(), args.y.as<T>(), args.a.as<T>(), args.b.as<T>());
  });
}

void ScaleCuda(const ScaleArgs& args, Stream& stream) {
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Map(stream, Scaled{args.scale}, args.y.size(), args.y.as<T>(), args.x.as<T>());
  });
}

void AccumulateCuda(const AccumulateArgs& args, Stream& stream) {
  DispatchFloat(args.y.dtype(), [&](auto y_tag) {
    using Y = typename decltype(y_tag)::type;
    DispatchFloat(args.x.dtype(), [&](auto x_tag) {
      using X = typename decltype(x_tag)::type;
      Map(stream, Accumulated{args.scale}, args.y.size(), args.y.as<Y>(), args.y.as<Y>(), args.x.as<X>());
    });
  });
}

void FillCuda(const FillArgs& args, Stream& stream) {
  if (args.value == 0) return CopyBytes(stream, nullptr, args.y.data(), args.y.bytes());  // 0 in every dtype
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Map(stream, Constant{args.value}, args.y.size(), args.y.as<T>());
  });
}

void ConvertCuda(const ConvertArgs& args, Stream& stream) {
  if (args.x.dtype() == args.y.dtype()) {
    if (args.x.data() != args.y.data()) CopyBytes(stream, args.x.data(), args.y.data(), args.y.bytes());
  } else if (args.y.dtype() == DType::kF32) {
    Map(stream, Same{}, args.y.size(), args.y.as<float>(), args.x.as<BFloat16>());
  } else {
    Map(stream, Same{}, args.y.size(), args.y.as<BFloat16>(), args.x.as<float>());
  }
}

void BiasGradientCuda(const BiasGradientArgs& args, Stream& stream) {
  const int64_t rows = args.dy.dim(0);
  const int64_t cols = args.dy.dim(1);
  DispatchFloat(args.dy.dtype(), [&](auto dy_tag) {
    using T = typename decltype(dy_tag)::type;
    DispatchFloat(args.db.dtype(), [&](auto db_tag) {
      using B = typename decltype(db_tag)::type;
      // bf16 sums of f32 gradients are no case of the op.
      if constexpr (sizeof(B) >= sizeof(T)) {
        ColumnSums(stream, args.dy.as<T>(), args.db.as<B>(), rows, cols, args.accumulate);
      }
    });
  });
}

}  // namespace trainyard::kernels::internal
