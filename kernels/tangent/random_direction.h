// Random parameter directions, made where they are needed instead of stored: entry e of tensor t in direction d is a
// standard normal number that follows from (seed, d, t, e) alone (influence-distillation.md 2.5).
#pragma once

#include <cstdint>

namespace trainyard::kernels {

struct DirectionKey {
  uint64_t seed = 0;
  uint32_t direction = 0;
  uint32_t tensor = 0;
};

// out[i] = entry begin + i, 0 <= i < count, as a float whatever T (float or double) is. Entries number up to 2^34.
template <typename T>
void FillDirection(const DirectionKey& key, int64_t begin, int64_t count, T* out);

extern template void FillDirection<float>(const DirectionKey&, int64_t, int64_t, float*);
extern template void FillDirection<double>(const DirectionKey&, int64_t, int64_t, double*);

}  // namespace trainyard::kernels
