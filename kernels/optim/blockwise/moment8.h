// Moments of Adam in 8 bits: blocks of 256 elements, one f32 scale each, codes on a grid that is finer near zero, since
// the elements of a block differ by orders of magnitude.
//
//   first    x = sign (|q| / 127)^4 scale    q in -127..127, stored as q + 128
//   second   x = (q / 255)^4 scale           q in 0..255; 0 for x = 0 only
//
// scale: max |x| of the block. Codes round to the nearest q. The relative step is 4 / |q|: at most 3.1 % (first)
// and 1.6 % (second) at the block's largest element, 18 % and 9 % where an element is a thousandth of it. A second
// moment above 0 never becomes 0, which as a divisor would make a step of any length. A value decays only while a step
// of Adam takes it past the middle of two codes: with beta1 0.9 and beta2 0.95, moments below 6e-4 of their block's
// largest may stay until that falls.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/simd.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

inline constexpr int64_t kMoment8Block = 256;

inline constexpr int64_t Moment8Blocks(int64_t elements) {
  return (elements + kMoment8Block - 1) / kMoment8Block;
}

TY_INLINE float FirstMomentOf(uint8_t code, float scale) {
  const float q = static_cast<float>(static_cast<int32_t>(code) - 128) * (1.0f / 127.0f);
  const float square = q * q;
  return square * (q < 0.0f ? -square : square) * scale;
}

TY_INLINE float SecondMomentOf(uint8_t code, float scale) {
  const float q = static_cast<float>(static_cast<int32_t>(code)) * (1.0f / 255.0f);
  return (q * q) * (q * q) * scale;
}

// inverse_scale: 1 / scale, or 0 for a block of zeros. Fused operations are written out: the same codes on every
// device.
TY_INLINE uint8_t FirstMomentCode(float x, float inverse_scale) {
  const float share = (x < 0.0f ? -x : x) * inverse_scale;
  const auto q = static_cast<int32_t>(std::fma(127.0f, std::sqrt(std::sqrt(share < 1.0f ? share : 1.0f)), 0.5f));
  return static_cast<uint8_t>(x < 0.0f ? 128 - q : 128 + q);
}

TY_INLINE uint8_t SecondMomentCode(float x, float inverse_scale) {
  const float share = x * inverse_scale;
  const auto q = static_cast<int32_t>(std::fma(255.0f, std::sqrt(std::sqrt(share < 1.0f ? share : 1.0f)), 0.5f));
  return static_cast<uint8_t>(x > 0.0f && q == 0 ? 1 : q);
}

// Elements [begin, begin + count) of a tensor of codes (u8, n) with scales (f32, Moment8Blocks(n)); `begin` is a
// multiple of kMoment8Block.
void LoadFirstMoments8(const TensorView& codes, const TensorView& scales, int64_t begin, int64_t count, float* values);
void LoadSecondMoments8(const TensorView& codes, const TensorView& scales, int64_t begin, int64_t count, float* values);

}  // namespace trainyard::kernels
