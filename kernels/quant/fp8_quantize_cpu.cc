#include <algorithm>

#include "kernels/codec/random_words.h"
#include "kernels/core/simd.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/fp8_quantize_internal.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void Scale(const float* x, float scale, int64_t count, float* scaled) {
  for (int64_t i = 0; i < count; ++i) scaled[i] = x[i] * scale;
}

template <typename Y>
TY_INLINE void NearestLoop(const float* x, int64_t count, Y* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = RoundNearest<Y>(x[i], Overflow::kSaturate);
}
TY_SIMD void Nearest(const float* x, int64_t count, Float8E4M3* y) {
  NearestLoop(x, count, y);
}
TY_SIMD void Nearest(const float* x, int64_t count, Float8E5M2* y) {
  NearestLoop(x, count, y);
}

// `overflow` comes as an argument: a constant folds into a branch, and the loop does not vectorise.
template <typename Y>
TY_INLINE void StochasticLoop(const float* x, const uint32_t* words, int64_t count, Overflow overflow, Y* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = RoundStochastic<Y>(x[i], words[i], overflow);
}
TY_SIMD void Stochastic(const float* x, const uint32_t* words, int64_t count, Overflow overflow, Float8E4M3* y) {
  StochasticLoop(x, words, count, overflow, y);
}
TY_SIMD void Stochastic(const float* x, const uint32_t* words, int64_t count, Overflow overflow, Float8E5M2* y) {
  StochasticLoop(x, words, count, overflow, y);
}

template <typename X>
TY_INLINE void WidenLoop(const X* x, float scale, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = WidenToFloat(x[i]) * scale;
}
TY_SIMD void WidenScaled(const Float8E4M3* x, float scale, int64_t count, float* y) {
  WidenLoop(x, scale, count, y);
}
TY_SIMD void WidenScaled(const Float8E5M2* x, float scale, int64_t count, float* y) {
  WidenLoop(x, scale, count, y);
}

// Calls body(first, count, index of the scale) over blocks that have one scale, split over the threads.
template <typename Body>
void ForBlocks(int64_t size, int64_t scales, Stream& stream, const Body& body) {
  const int64_t span = scales == 0 ? 0 : size / scales;  // elements of one scale
  const int64_t blocks = (span + kFloatBlock - 1) / kFloatBlock;
  stream.pool().ParallelFor(scales * blocks, 8, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t scale = block / blocks;
      const int64_t within = block % blocks * kFloatBlock;
      body(scale * span + within, std::min(kFloatBlock, span - within), scale);
    }
  });
}

// Codes of elements first .. first + count - 1, at most kFloatBlock, which have one amax; and their values.
template <typename Y>
void QuantizeRun(const Fp8QuantizeArgs& args, int64_t first, int64_t count, float amax, Y* codes) {
  float loaded[kFloatBlock];
  float scaled[kFloatBlock];
  Scale(LoadFloats(args.x, first, count, loaded), args.target / Fp8UsedAmax(amax), count, scaled);
  if (args.rounding == Rounding::kNearestEven) {
    Nearest(scaled, count, codes);
  } else {
    uint32_t words[RandomBufferWords(kFloatBlock)];
    Stochastic(scaled, RandomWords(args.random, static_cast<uint64_t>(first), count, words), count, Overflow::kSaturate,
               codes);
  }
  if (args.values) {
    float* values = FloatsOf(args.values, first, scaled);
    WidenScaled(codes, 1.0f, count, values);
    StoreFloats(values, args.values, first, count);
  }
}

// In squares, which are turned in the cache.
template <typename Y>
void QuantizeAndTranspose(const Fp8QuantizeArgs& args, Stream& stream) {
  constexpr int64_t kSquare = 64;
  const int64_t rows = args.x.dim(0);
  const int64_t cols = args.x.dim(1);
  const float* amax = args.amax.as<float>();
  const int64_t across = (cols + kSquare - 1) / kSquare;
  stream.pool().ParallelFor((rows + kSquare - 1) / kSquare * across, 4, [&](int64_t begin, int64_t end) {
    Y square[kSquare][kSquare];
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / across * kSquare;
      const int64_t col = i % across * kSquare;
      const int64_t height = std::min(kSquare, rows - row);
      const int64_t width = std::min(kSquare, cols - col);
      for (int64_t r = 0; r < height; ++r) {
        const int64_t first = (row + r) * cols + col;
        QuantizeRun(args, first, width, amax[args.amax.size() == 1 ? 0 : row + r], square[r]);
        if (args.codes) std::copy_n(square[r], width, args.codes.as<Y>() + first);
      }
      for (int64_t c = 0; c < width; ++c) {
        Y* to = args.transposed.as<Y>() + (col + c) * rows + row;
        for (int64_t r = 0; r < height; ++r) to[r] = square[r][c];
      }
    }
  });
}

template <typename Y>
void Quantize(const Fp8QuantizeArgs& args, Stream& stream) {
  if (args.transposed) return QuantizeAndTranspose<Y>(args, stream);
  const float* amax = args.amax.as<float>();
  Y* codes = args.codes.as<Y>();
  ForBlocks(args.x.size(), args.amax.size(), stream, [&](int64_t first, int64_t count, int64_t scale) {
    QuantizeRun(args, first, count, amax[scale], codes + first);
  });
}

// In lanes, added in a fixed tree.
template <typename X>
TY_INLINE float SumOf(const X* x, int64_t count) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += WidenToFloat(x[i + lane]);
  }
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] += WidenToFloat(x[i]);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}
TY_SIMD float SumCodes(const Float8E4M3* x, int64_t count) {
  return SumOf(x, count);
}
TY_SIMD float SumCodes(const Float8E5M2* x, int64_t count) {
  return SumOf(x, count);
}

template <typename X>
void Dequantize(const Fp8DequantizeArgs& args, Stream& stream) {
  const float* inverse = args.inverse.as<float>();
  const X* codes = args.codes.as<X>();
  ForBlocks(args.codes.size(), args.inverse.size(), stream, [&](int64_t first, int64_t count, int64_t scale) {
    float buffer[kFloatBlock];
    float* y = FloatsOf(args.y, first, buffer);
    WidenScaled(codes + first, inverse[scale], count, y);
    StoreFloats(y, args.y, first, count);
  });
}

}  // namespace

void Fp8QuantizeCpu(const Fp8QuantizeArgs& args, Stream& stream) {
  const bool is_e4m3 = Fp8CodeType(args) == DType::kF8E4M3;
  (is_e4m3 ? Quantize<Float8E4M3> : Quantize<Float8E5M2>)(args, stream);
  const float* amax = args.amax.as<float>();  // read to the end before: `inverse` may be the same memory
  float* inverse = args.inverse.as<float>();
  for (int64_t i = 0; i < args.amax.size(); ++i) inverse[i] = Fp8UsedAmax(amax[i]) / args.target;
}

void Fp8DequantizeCpu(const Fp8DequantizeArgs& args, Stream& stream) {
  const bool is_e4m3 = args.codes.dtype() == DType::kF8E4M3;
  (is_e4m3 ? Dequantize<Float8E4M3> : Dequantize<Float8E5M2>)(args, stream);
}

void Fp8RowSumsCpu(const Fp8RowSumsArgs& args, Stream& stream) {
  const bool is_e4m3 = args.codes.dtype() == DType::kF8E4M3;
  const int64_t cols = args.codes.dim(1);
  const float inverse = args.inverse.as<float>()[0];
  float* y = args.y.as<float>();
  stream.pool().ParallelFor(args.codes.dim(0), 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float sum = is_e4m3 ? SumCodes(args.codes.as<Float8E4M3>() + r * cols, cols)
                                : SumCodes(args.codes.as<Float8E5M2>() + r * cols, cols);
      y[r] = args.accumulate ? y[r] + inverse * sum : inverse * sum;
    }
  });
}

}  // namespace trainyard::kernels::internal
