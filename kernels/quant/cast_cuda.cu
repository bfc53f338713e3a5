#include "kernels/core/launch.h"
#include "kernels/quant/cast_internal.h"
#include "kernels/quant/chunk.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kChunk = 4;  // elements a thread: one call of the generator

template <typename Y>
__global__ void NarrowKernel(Floats x, Y* y, int64_t size, float scale, Rounding rounding, Overflow overflow,
                             PhiloxKey random) {
  for (int64_t first = GlobalThread() * kChunk; first < size; first += GlobalThreads() * kChunk) {
    float values[kChunk];
    Y codes[kChunk];
    Load<kChunk>(x, first, size - first, values);
    TY_UNROLL
    for (int i = 0; i < kChunk; ++i) values[i] *= scale;
    if (rounding == Rounding::kNearestEven) {
      TY_UNROLL
      for (int i = 0; i < kChunk; ++i) codes[i] = RoundNearest<Y>(values[i], overflow);
    } else {
      uint32_t words[kChunk];
      FourWords(random, first, words);
      TY_UNROLL
      for (int i = 0; i < kChunk; ++i) codes[i] = RoundStochastic<Y>(values[i], words[i], overflow);
    }
    StoreChunk<kChunk>(codes, size - first, y + first);
  }
}

template <typename X>
__global__ void WidenKernel(const X* x, float* y, int64_t size, float scale) {
  for (int64_t first = GlobalThread() * kChunk; first < size; first += GlobalThreads() * kChunk) {
    X codes[kChunk];
    float values[kChunk];
    LoadChunk<kChunk>(x + first, size - first, codes);
    TY_UNROLL
    for (int i = 0; i < kChunk; ++i) values[i] = WidenToFloat(codes[i]) * scale;
    StoreChunk<kChunk>(values, size - first, y + first);
  }
}

}  // namespace

void NarrowCuda(const NarrowArgs& args, Stream& stream) {
  const int64_t size = args.y.size();
  if (size == 0) return;
  DispatchNarrow(args.y.dtype(), [&](auto* type) {
    using Y = std::remove_pointer_t<decltype(type)>;
    Launch(stream, ElementwiseGrid(size, kChunk), NarrowKernel<Y>, Floats(args.x), args.y.as<Y>(), size, args.scale,
           args.rounding, args.overflow, args.random);
  });
}

void WidenCuda(const WidenArgs& args, Stream& stream) {
  const int64_t size = args.y.size();
  if (size == 0) return;
  DispatchNarrow(args.x.dtype(), [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    Launch(stream, ElementwiseGrid(size, kChunk), WidenKernel<X>, args.x.as<X>(), args.y.as<float>(), size, args.scale);
  });
}

}  // namespace trainyard::kernels::internal
