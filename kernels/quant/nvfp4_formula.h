// The scales of NVFP4 as every backend computes them: each line is one correctly rounded operation or an explicit fused
// multiply-add.
#pragma once

#include "kernels/core/unroll.h"
#include "kernels/quant/e2m1.h"
#include "kernels/quant/nvfp4.h"

namespace trainyard::kernels {

struct NvRange {
  float range;  // what the largest magnitude of a group becomes, in units of its scale
  float cap;    // the largest group scale
};

TY_INLINE NvRange NvRangeOf(const NvFormat& format) {
  constexpr float kStochasticRange = static_cast<float>(6.0 * 16 / 17);
  switch (format.method) {
    case NvMethod::kNearest:
      return {6.0f, 448.0f};
    case NvMethod::kFourOverSix:
      return {6.0f, 256.0f};  // the alternative is 1.5 times that
    case NvMethod::kStochastic:
      return {kStochasticRange, 448.0f};
    case NvMethod::kStochasticFourOverSix:
      return {kStochasticRange, 256.0f};
    case NvMethod::kMsEden:
      return {format.eden_clip, 255.99f};  // 256 is even: what rounds up to it stays there
  }
  return {};
}

// s32. 2^-117 keeps s8 s32 a normal number.
TY_INLINE float NvTensorScale(float amax, NvRange range) {
  const float scale = amax / (range.range * range.cap);
  return scale < 0x1p-117f ? 1.0f : scale;
}

// The code of s8 nearest to `scale`, 1 if that is 0.
TY_INLINE uint8_t NvScaleCode(float scale) {
  const uint8_t code = RoundNearest<Float8E4M3>(scale, Overflow::kSaturate).bits;
  constexpr uint8_t kOne = 0x38;
  return code == 0 ? kOne : code;
}

TY_INLINE float NvScaleValue(uint8_t code) {
  return WidenToFloat(Float8E4M3{code});
}

// What is the same for a whole tensor.
struct NvPlan {
  NvRange range;
  float tensor_scale;
};

TY_INLINE NvPlan MakeNvPlan(const NvFormat& format, float amax) {
  const NvRange range = NvRangeOf(format);
  return {range, NvTensorScale(amax, range)};
}

// s8 of a group from its largest magnitude; `times` 1.5 for the alternative that maps it to 4.
TY_INLINE float NvGroupScale(float largest, const NvPlan& plan, float times) {
  return NvScaleValue(NvScaleCode(times * largest / plan.range.range / plan.tensor_scale));
}

// What x is multiplied by to be in units of s8 s32.
TY_INLINE float NvInverse(float scale, float tensor_scale) {
  return 1.0f / (scale * tensor_scale);
}

// Sum of a[i] b[i] over a group: h[i] = a[i] b[i] + a[i + 8] b[i + 8], and the eight by halves.
TY_INLINE float NvGroupDot(const float* a, const float* b) {
  constexpr int kHalf = kNvGroup / 2;
  float half[kHalf];
  TY_UNROLL
  for (int i = 0; i < kHalf; ++i) half[i] = __builtin_fmaf(a[i], b[i], a[i + kHalf] * b[i + kHalf]);
#if defined(__CUDACC__)
  TY_UNROLL
  for (int i = 0; i < 4; ++i) half[i] += half[i + 4];
  TY_UNROLL
  for (int i = 0; i < 2; ++i) half[i] += half[i + 2];
  return half[0] + half[1];
#else  // the same in one register: of the loops the compiler makes loads and stores
  using Vector = float __attribute__((vector_size(kHalf * sizeof(float))));
  Vector sums;
  __builtin_memcpy(&sums, half, sizeof(sums));
  sums += __builtin_shufflevector(sums, sums, 4, 5, 6, 7, 0, 1, 2, 3);
  sums += __builtin_shufflevector(sums, sums, 2, 3, 0, 1, 6, 7, 4, 5);
  return sums[0] + sums[1];
#endif
}

// What x loses when it becomes level * scale, scale = s8 s32.
TY_INLINE float NvError(float x, float level, float scale) {
  return __builtin_fmaf(-level, scale, x);
}

// max |x| of a group; NaN if one is NaN.
TY_INLINE float NvGroupLargest(const float* x) {
  uint32_t largest = 0;
  TY_UNROLL
  for (int i = 0; i < kNvGroup; ++i) {
    const uint32_t magnitude = __builtin_bit_cast(uint32_t, x[i]) & 0x7FFFFFFF;
    largest = magnitude > largest ? magnitude : largest;
  }
  return __builtin_bit_cast(float, largest);
}

// The EDEN factor; 1 where it has no meaning.
TY_INLINE float EdenFactor(float squares, float products) {
  return products == 0.0f ? 1.0f : squares / products;
}

}  // namespace trainyard::kernels
