// Random parameter directions, made where they are needed instead of stored: entry e of tensor t in direction d is a
// standard normal number that follows from (seed, d, t, e) alone (influence-distillation.md 2.5). The same bits on
// every device: logarithm, sine and cosine are polynomials of our own (random_direction_formula.h).
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"

namespace trainyard::kernels {

struct DirectionKey {
  uint64_t seed = 0;
  uint32_t direction = 0;
  uint32_t tensor = 0;
};

// out[i] = entry begin + i, 0 <= i < count, as a float whatever T (float or double) is. Entries number up to 2^34.
// `out` is memory of the host; the calling thread does the work.
template <typename T>
void FillDirection(const DirectionKey& key, int64_t begin, int64_t count, T* out);

// The same in memory of the stream's device, by the stream. On a CUDA stream for float only.
template <typename T>
void FillDirection(const DirectionKey& key, int64_t begin, int64_t count, T* out, Stream& stream);

extern template void FillDirection<float>(const DirectionKey&, int64_t, int64_t, float*);
extern template void FillDirection<double>(const DirectionKey&, int64_t, int64_t, double*);
extern template void FillDirection<float>(const DirectionKey&, int64_t, int64_t, float*, Stream&);
extern template void FillDirection<double>(const DirectionKey&, int64_t, int64_t, double*, Stream&);

}  // namespace trainyard::kernels
