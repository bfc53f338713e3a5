// max |x| of what an op writes, taken on the way: what AbsMax (abs_max.h) would find in one more pass over the output,
// bit for bit. On the CPU the elements are read again while they are in the cache. Its twin for CUDA kernels is
// largest_magnitude_device.h.
//
// An op with such an output has an optional argument `amax`, f32 (1), overwritten; 0 of nothing, NaN if one is NaN.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernels/core/tensor.h"

namespace trainyard::kernels {

// The bits of max |x| as a float, of elements first .. first + count - 1; x f32 or bf16.
uint32_t LargestMagnitudeBits(const TensorView& x, int64_t first, int64_t count);

class LargestMagnitude {
 public:
  // Does nothing if `amax` is absent.
  explicit LargestMagnitude(const TensorView& amax);

  // Any thread. A maximum of integers: the order does not matter.
  void Add(const TensorView& x, int64_t first, int64_t count);
  // Writes `amax`. Once, when all threads have added.
  void Finish();

 private:
  const TensorView amax_;
  std::atomic<uint32_t> largest_{0};
};

}  // namespace trainyard::kernels
