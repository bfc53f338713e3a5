#include <algorithm>

#include "kernels/core/simd.h"
#include "kernels/quant/cast_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kBlock = 1024;  // elements whose random words fit the first-level cache

template <typename X>
TY_INLINE void ScaledBlock(const X* x, float* scaled, float scale, int64_t count) {
  for (int64_t i = 0; i < count; ++i) scaled[i] = ToFloat(x[i]) * scale;
}
TY_SIMD void ScaleBlock(const float* x, float* scaled, float scale, int64_t count) {
  ScaledBlock(x, scaled, scale, count);
}
TY_SIMD void ScaleBlockBF16(const BFloat16* x, float* scaled, float scale, int64_t count) {
  ScaledBlock(x, scaled, scale, count);
}

template <typename Y>
TY_INLINE void NearestBlock(const float* x, Y* y, int64_t count, Overflow overflow) {
  for (int64_t i = 0; i < count; ++i) y[i] = RoundNearest<Y>(x[i], overflow);
}
TY_SIMD void Nearest(const float* x, BFloat16* y, int64_t count, Overflow overflow) {
  NearestBlock(x, y, count, overflow);
}
TY_SIMD void Nearest(const float* x, Float16* y, int64_t count, Overflow overflow) {
  NearestBlock(x, y, count, overflow);
}
TY_SIMD void Nearest(const float* x, Float8E4M3* y, int64_t count, Overflow overflow) {
  NearestBlock(x, y, count, overflow);
}
TY_SIMD void Nearest(const float* x, Float8E5M2* y, int64_t count, Overflow overflow) {
  NearestBlock(x, y, count, overflow);
}

template <typename Y>
TY_INLINE void StochasticBlock(const float* x, const uint32_t* words, Y* y, int64_t count, Overflow overflow) {
  for (int64_t i = 0; i < count; ++i) y[i] = RoundStochastic<Y>(x[i], words[i], overflow);
}
TY_SIMD void Stochastic(const float* x, const uint32_t* words, BFloat16* y, int64_t count, Overflow overflow) {
  StochasticBlock(x, words, y, count, overflow);
}
TY_SIMD void Stochastic(const float* x, const uint32_t* words, Float16* y, int64_t count, Overflow overflow) {
  StochasticBlock(x, words, y, count, overflow);
}
TY_SIMD void Stochastic(const float* x, const uint32_t* words, Float8E4M3* y, int64_t count, Overflow overflow) {
  StochasticBlock(x, words, y, count, overflow);
}
TY_SIMD void Stochastic(const float* x, const uint32_t* words, Float8E5M2* y, int64_t count, Overflow overflow) {
  StochasticBlock(x, words, y, count, overflow);
}

// words[4 b + w] = word w of the generator's block first_block + b: RandomWord of the elements in order.
TY_SIMD void RandomWords(const PhiloxKey& key, uint32_t first_block, uint32_t* words) {
  for (uint32_t block = 0; block < kBlock / 4; ++block) {
    const std::array<uint32_t, 4> four = RandomBlock(key, first_block + block);
    for (uint32_t w = 0; w < 4; ++w) words[4 * block + w] = four[w];
  }
}

template <typename Y>
TY_INLINE void WidenBlock(const Y* x, float* y, float scale, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = WidenToFloat(x[i]) * scale;
}
TY_SIMD void WidenRange(const BFloat16* x, float* y, float scale, int64_t count) {
  WidenBlock(x, y, scale, count);
}
TY_SIMD void WidenRange(const Float16* x, float* y, float scale, int64_t count) {
  WidenBlock(x, y, scale, count);
}
TY_SIMD void WidenRange(const Float8E4M3* x, float* y, float scale, int64_t count) {
  WidenBlock(x, y, scale, count);
}
TY_SIMD void WidenRange(const Float8E5M2* x, float* y, float scale, int64_t count) {
  WidenBlock(x, y, scale, count);
}

template <typename Y>
void NarrowRange(const NarrowArgs& args, int64_t begin, int64_t end) {
  float scaled[kBlock];
  uint32_t words[kBlock];
  Y* y = args.y.as<Y>();
  for (int64_t first = begin; first < end; first += kBlock) {
    const int64_t count = std::min(kBlock, end - first);
    if (args.x.dtype() == DType::kF32) {
      ScaleBlock(args.x.as<float>() + first, scaled, args.scale, count);
    } else {
      ScaleBlockBF16(args.x.as<BFloat16>() + first, scaled, args.scale, count);
    }
    if (args.rounding == Rounding::kNearestEven) {
      Nearest(scaled, y + first, count, args.overflow);
    } else {
      RandomWords(args.random, static_cast<uint32_t>(first / 4), words);
      Stochastic(scaled, words, y + first, count, args.overflow);
    }
  }
}

}  // namespace

void NarrowCpu(const NarrowArgs& args, Stream& stream) {
  DispatchNarrow(args.y.dtype(), [&](auto* type) {
    using Y = std::remove_pointer_t<decltype(type)>;
    stream.pool().ParallelFor(args.y.size(), 16 * kBlock,
                              [&](int64_t begin, int64_t end) { NarrowRange<Y>(args, begin, end); });
  });
}

void WidenCpu(const WidenArgs& args, Stream& stream) {
  float* y = args.y.as<float>();
  DispatchNarrow(args.x.dtype(), [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    const X* x = args.x.as<X>();
    stream.pool().ParallelFor(args.y.size(), 16 * kBlock, [&](int64_t begin, int64_t end) {
      WidenRange(x + begin, y + begin, args.scale, end - begin);
    });
  });
}

}  // namespace trainyard::kernels::internal
