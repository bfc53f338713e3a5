#include "kernels/optim/blocks.h"

#include <algorithm>
#include <cfloat>
#include <cstring>

#include "base/check.h"
#include "kernels/codec/random_words.h"
#include "kernels/core/simd.h"
#include "kernels/quant/number_format.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void Widen(const BFloat16* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = ToFloat(x[i]);
}

TY_SIMD void NarrowNearest(const float* x, int64_t count, BFloat16* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = FromFloat<BFloat16>(x[i]);
}

TY_SIMD void NarrowStochastic(const float* x, const uint32_t* words, int64_t count, BFloat16* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = RoundStochastic<BFloat16>(x[i], words[i]);
}

TY_SIMD void WidenScaled(const Float8E4M3* x, float scale, int64_t count, float* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = WidenToFloat(x[i]) * scale;
}

TY_SIMD void NarrowScaledNearest(const float* x, float inverse, int64_t count, Float8E4M3* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = RoundNearest<Float8E4M3>(x[i] * inverse, Overflow::kSaturate);
}

// `overflow` comes as an argument: a constant folds into a branch, and the loop does not vectorise.
TY_SIMD void NarrowScaledStochastic(const float* x, float inverse, const uint32_t* words, int64_t count,
                                    Overflow overflow, Float8E4M3* y) {
  for (int64_t i = 0; i < count; ++i) y[i] = RoundStochastic<Float8E4M3>(x[i] * inverse, words[i], overflow);
}

// As bits, so that NaN is larger than all else.
TY_SIMD float LargestMagnitude(const float* x, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t magnitude = __builtin_bit_cast(uint32_t, x[i]) & 0x7FFFFFFF;
    largest = magnitude > largest ? magnitude : largest;
  }
  return __builtin_bit_cast(float, largest);
}

// Buffer for the words of one block.
struct Words {
  alignas(64) uint32_t buffer[RandomBufferWords(kBlock)];

  const uint32_t* Of(const BlockRounding& how, int64_t begin, int64_t count) {
    return RandomWords(how.random, static_cast<uint64_t>(how.first_element + begin), count, buffer);
  }
};

}  // namespace

float* LoadBlock(const TensorView& x, int64_t begin, int64_t count, float* buffer) {
  TY_CHECK_LE(count, kBlock);
  if (x.dtype() == DType::kF32) return x.as<float>() + begin;
  Widen(x.as<BFloat16>() + begin, count, buffer);
  return buffer;
}

void StoreBlock(const float* block, const BlockRounding& how, int64_t begin, int64_t count, const TensorView& x) {
  if (x.dtype() == DType::kF32) {
    float* to = x.as<float>() + begin;
    if (to != block) std::memcpy(to, block, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  BFloat16* to = x.as<BFloat16>() + begin;
  if (how.rounding == Rounding::kNearestEven) return NarrowNearest(block, count, to);
  Words words;
  NarrowStochastic(block, words.Of(how, begin, count), count, to);
}

float* LoadScaledBlock(const TensorView& codes, const TensorView& scales, int64_t begin, int64_t count, float* buffer) {
  TY_CHECK_LE(count, kBlock);
  for (int64_t at = 0; at < count; at += kScaleGroup) {
    WidenScaled(codes.as<Float8E4M3>() + begin + at, scales.as<float>()[(begin + at) / kScaleGroup],
                std::min(kScaleGroup, count - at), buffer + at);
  }
  return buffer;
}

void StoreScaledBlock(const float* block, const BlockRounding& how, int64_t begin, int64_t count,
                      const TensorView& codes, const TensorView& scales) {
  Words buffer;
  const uint32_t* const words = how.rounding == Rounding::kStochastic ? buffer.Of(how, begin, count) : nullptr;
  for (int64_t at = 0; at < count; at += kScaleGroup) {
    const int64_t length = std::min(kScaleGroup, count - at);
    float scale = LargestMagnitude(block + at, length) / 448.0f;
    if (scale < FLT_MIN) scale = 0;  // its inverse would not be finite; NaN stays
    scales.as<float>()[(begin + at) / kScaleGroup] = scale;
    const float inverse = scale == 0 ? 0 : 1 / scale;
    Float8E4M3* const to = codes.as<Float8E4M3>() + begin + at;
    if (words == nullptr) {
      NarrowScaledNearest(block + at, inverse, length, to);
    } else {
      NarrowScaledStochastic(block + at, inverse, words + at, length, Overflow::kSaturate, to);
    }
  }
}

}  // namespace trainyard::kernels::internal
