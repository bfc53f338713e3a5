// For <op>_cuda.cu: one group of NVFP4 in the registers of a thread.
#pragma once

#include "kernels/quant/chunk.h"
#include "kernels/quant/nvfp4_formula.h"

namespace trainyard::kernels::internal {

struct NvGroup {
  float scale;
  float levels[kNvGroup];
};

__device__ inline void NvInUnits(const float* x, float inverse, float* u) {
  TY_UNROLL
  for (int i = 0; i < kNvGroup; ++i) u[i] = x[i] * inverse;
}

__device__ inline void NvNearestLevels(const float* u, float* levels) {
  TY_UNROLL
  for (int i = 0; i < kNvGroup; ++i) levels[i] = E2M1Level(u[i]);
}

// `first_word`: RandomWord of the group's first element.
__device__ inline void NvStochasticLevels(const float* u, const PhiloxKey& random, int64_t first_word, float* levels) {
  TY_UNROLL
  for (int first = 0; first < kNvGroup; first += 4) {
    uint32_t words[4];
    FourWords(random, first_word + first, words);
    TY_UNROLL
    for (int i = 0; i < 4; ++i) levels[first + i] = E2M1Level(u[first + i], words[i]);
  }
}

__device__ inline float NvSquaredError(const float* x, const NvGroup& group, float tensor_scale) {
  const float scale = group.scale * tensor_scale;
  float errors[kNvGroup];
  TY_UNROLL
  for (int i = 0; i < kNvGroup; ++i) errors[i] = NvError(x[i], group.levels[i], scale);
  return NvGroupDot(errors, errors);
}

__device__ inline void NvStorePacked(const float* levels, uint8_t* packed) {
  uint8_t bytes[kNvGroup / 2];
  TY_UNROLL
  for (int i = 0; i < kNvGroup / 2; ++i) {
    bytes[i] = static_cast<uint8_t>(E2M1Code(levels[2 * i]) | E2M1Code(levels[2 * i + 1]) << 4);
  }
  StoreChunk<kNvGroup / 2>(bytes, kNvGroup / 2, packed);
}

}  // namespace trainyard::kernels::internal
