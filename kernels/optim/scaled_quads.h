// Quads of E4M3 with one scale for each kWarpElements elements, which are a warp's: LoadScaledBlock and
// StoreScaledBlock of blocks.h, in the order of ForQuads.
#pragma once

#include <cfloat>

#include "kernels/optim/quads.h"

namespace trainyard::kernels::internal {

__device__ inline Quad DecodeScaledQuad(const RawQuad& raw, const QuadPlace& place, const float* scales) {
  Quad quad = DecodeQuad(DType::kF8E4M3, raw);
  if (place.count == 0) return quad;
  const float scale = scales[place.at / kWarpElements];
  for (int j = 0; j < 4; ++j) quad.x[j] *= scale;
  return quad;
}

// Makes the scale anew. All lanes of the warp must call.
__device__ inline void StoreScaledQuad(const Quad& quad, const QuadRounding& how, const QuadPlace& place, void* codes,
                                       float* scales) {
  const uint32_t largest = WarpReduce(LargestBits(quad, place.count), Max());
  float scale = __builtin_bit_cast(float, largest) / 448.0f;
  if (scale < FLT_MIN) scale = 0;  // its inverse would not be finite; NaN stays
  if (place.at % kWarpElements == 0 && place.count > 0) scales[place.at / kWarpElements] = scale;
  const float inverse = scale == 0 ? 0 : 1 / scale;
  RawQuad raw = {};
  if (how.is_stochastic()) {
    const RawQuad words = how.Words(place);
    for (int j = 0; j < 4; ++j) {
      const Float8E4M3 code = RoundStochastic<Float8E4M3>(quad.x[j] * inverse, words.word[j], Overflow::kSaturate);
      raw.word[0] |= uint32_t{code.bits} << (j * 8);
    }
  } else {
    for (int j = 0; j < 4; ++j) {
      const Float8E4M3 code = RoundNearest<Float8E4M3>(quad.x[j] * inverse, Overflow::kSaturate);
      raw.word[0] |= uint32_t{code.bits} << (j * 8);
    }
  }
  StoreBytes(raw, place, codes);
}

}  // namespace trainyard::kernels::internal
