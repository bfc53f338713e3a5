#include "kernels/quant/largest_magnitude.h"

#include "kernels/core/simd.h"

namespace trainyard::kernels {
namespace {

template <typename Bits>
TY_INLINE Bits LargestBits(const Bits* x, int64_t count, Bits magnitude_mask) {
  Bits largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Bits magnitude = x[i] & magnitude_mask;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}
TY_SIMD uint32_t LargestFloat(const uint32_t* x, int64_t count) {
  return LargestBits<uint32_t>(x, count, 0x7FFFFFFF);
}
TY_SIMD uint16_t LargestBF16(const uint16_t* x, int64_t count) {
  return LargestBits<uint16_t>(x, count, 0x7FFF);
}

}  // namespace

uint32_t LargestMagnitudeBits(const TensorView& x, int64_t first, int64_t count) {
  if (x.dtype() == DType::kF32) return LargestFloat(static_cast<const uint32_t*>(x.data()) + first, count);
  TY_CHECK(x.dtype() == DType::kBF16);
  return static_cast<uint32_t>(LargestBF16(static_cast<const uint16_t*>(x.data()) + first, count)) << 16;
}

LargestMagnitude::LargestMagnitude(const TensorView& amax) : amax_(amax) {
  if (!amax) return;
  TY_CHECK(amax.dtype() == DType::kF32);
  TY_CHECK_EQ(amax.size(), 1);
}

void LargestMagnitude::Add(const TensorView& x, int64_t first, int64_t count) {
  if (!amax_) return;
  const uint32_t bits = LargestMagnitudeBits(x, first, count);
  uint32_t seen = largest_.load(std::memory_order_relaxed);
  while (seen < bits && !largest_.compare_exchange_weak(seen, bits, std::memory_order_relaxed)) {
  }
}

void LargestMagnitude::Finish() {
  if (amax_) amax_.as<float>()[0] = __builtin_bit_cast(float, largest_.load(std::memory_order_relaxed));
}

}  // namespace trainyard::kernels
