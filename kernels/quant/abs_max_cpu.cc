#include <algorithm>
#include <atomic>

#include "kernels/core/simd.h"
#include "kernels/quant/abs_max_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kChunk = 16384;

template <typename Bits>
TY_INLINE Bits LargestMagnitude(const Bits* x, int64_t count, Bits magnitude_mask) {
  Bits largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Bits magnitude = x[i] & magnitude_mask;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}
TY_SIMD uint32_t LargestFloat(const uint32_t* x, int64_t count) {
  return LargestMagnitude<uint32_t>(x, count, 0x7FFFFFFF);
}
TY_SIMD uint16_t LargestBF16(const uint16_t* x, int64_t count) {
  return LargestMagnitude<uint16_t>(x, count, 0x7FFF);
}

// Bits of max |x| as a float.
uint32_t LargestOf(const TensorView& x, int64_t first, int64_t count) {
  if (x.dtype() == DType::kF32) return LargestFloat(static_cast<const uint32_t*>(x.data()) + first, count);
  return static_cast<uint32_t>(LargestBF16(static_cast<const uint16_t*>(x.data()) + first, count)) << 16;
}

}  // namespace

void AbsMaxCpu(const AbsMaxArgs& args, Stream& stream) {
  float* y = args.y.as<float>();
  if (args.y.size() == 1) {
    std::atomic<uint32_t> largest{0};
    stream.pool().ParallelFor(args.x.size(), kChunk, [&](int64_t begin, int64_t end) {
      const uint32_t bits = LargestOf(args.x, begin, end - begin);
      uint32_t seen = largest.load(std::memory_order_relaxed);
      while (seen < bits && !largest.compare_exchange_weak(seen, bits, std::memory_order_relaxed)) {
      }
    });
    y[0] = __builtin_bit_cast(float, largest.load());
    return;
  }
  const int64_t cols = args.x.dim(1);
  const int64_t grain = std::max<int64_t>(1, kChunk / std::max<int64_t>(1, cols));
  stream.pool().ParallelFor(args.x.dim(0), grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      y[row] = __builtin_bit_cast(float, LargestOf(args.x, row * cols, cols));
    }
  });
}

}  // namespace trainyard::kernels::internal
