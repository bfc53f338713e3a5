// Where the k-th largest magnitude of a vector lies: exact, without sorting and without memory.
#pragma once

#include <cstdint>

namespace trainyard::kernels::internal {

// Magnitudes of floats are ordered like these; of what is not finite, they are the largest.
inline uint32_t MagnitudeBits(float x) {
  return __builtin_bit_cast(uint32_t, x) & 0x7FFFFFFF;
}

// Every value of a larger magnitude is among the k, and `ties` of those that are equal.
struct MagnitudeThreshold {
  uint32_t magnitude = 0;
  int64_t ties = 0;
};

// 1 <= k <= n.
MagnitudeThreshold FindMagnitudeThreshold(const float* x, int64_t n, int64_t k);

}  // namespace trainyard::kernels::internal
