// For <op>_cuda.cu: stored tensors (stored_tensor.h) four elements a thread.
#pragma once

#include "kernels/optim/quads.h"
#include "kernels/prune/stored_tensor.h"

namespace trainyard::kernels::internal {

struct StoredQuads {
  QuadArray values;  // no data: there is no such tensor
  float* scale = nullptr;

  StoredQuads() = default;
  StoredQuads(const StoredTensor& x)  // NOLINT: reads like the tensor in args
      : values(x.values), scale(HasScale(x.values.dtype()) && x.scale ? x.scale.as<float>() : nullptr) {}
};

__device__ inline Quad DecodeStored(const StoredQuads& x, const RawQuad& raw) {
  Quad quad = DecodeQuad(x.values.dtype, raw);
  if (x.scale == nullptr) return quad;
  const float scale = *x.scale;
  for (int j = 0; j < 4; ++j) quad.x[j] *= scale;
  return quad;
}
__device__ inline Quad LoadStored(const StoredQuads& x, const QuadPlace& place) {
  return DecodeStored(x, LoadQuad(x.values, place));
}

// Rounds with the scale that x has.
__device__ inline void StoreStored(const Quad& quad, const QuadPlace& place, const StoredQuads& x) {
  RawQuad raw = {};
  switch (x.values.dtype) {
    case DType::kF32:
      return StoreFloats(quad, place, static_cast<float*>(x.values.data));
    case DType::kBF16:
      for (int j = 0; j < 4; ++j) raw.word[j / 2] |= uint32_t{RoundNearest<BFloat16>(quad.x[j]).bits} << (j % 2 * 16);
      return StoreHalves(raw, place, x.values.data);
    case DType::kF8E4M3: {
      const float divisor = StoredDivisor(*x.scale);
      for (int j = 0; j < 4; ++j) {
        raw.word[0] |= uint32_t{RoundNearest<Float8E4M3>(quad.x[j] / divisor, Overflow::kSaturate).bits} << (j * 8);
      }
      return StoreBytes(raw, place, x.values.data);
    }
    default: {
      const float divisor = StoredDivisor(*x.scale);
      for (int j = 0; j < 4; ++j) {
        raw.word[0] |= uint32_t{RoundNearest<Float8E5M2>(quad.x[j] / divisor, Overflow::kSaturate).bits} << (j * 8);
      }
      return StoreBytes(raw, place, x.values.data);
    }
  }
}

// The bits of a mask for the quad's elements, from bit 0; 0 for elements that are not there. place.at is a multiple of
// 4.
__device__ inline uint32_t MaskOfQuad(const uint8_t* mask, const QuadPlace& place) {
  return place.count == 0 ? 0u : (uint32_t{mask[place.at / 8]} >> (place.at % 8)) & 15u;
}

}  // namespace trainyard::kernels::internal
