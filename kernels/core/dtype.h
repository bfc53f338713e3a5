// Element types of tensors, and the bit patterns of the narrow floats.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels {

enum class DType : uint8_t { kF32, kBF16, kF16, kF8E4M3, kF8E5M2, kI32, kU32, kU16, kU8 };

// Storage of the narrow formats; arithmetic is done in float after kernels/quant/cast.h or ToFloat below.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};
struct Float8E4M3 {
  uint8_t bits;
};
struct Float8E5M2 {
  uint8_t bits;
};

size_t SizeOf(DType dtype);           // bytes an element
absl::string_view Name(DType dtype);  // "f32", "bf16", "f16", "f8_e4m3", "f8_e5m2", "i32", "u32", "u16", "u8"

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct DTypeOf<Float8E4M3> {
  static constexpr DType value = DType::kF8E4M3;
};
template <>
struct DTypeOf<Float8E5M2> {
  static constexpr DType value = DType::kF8E5M2;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<uint32_t> {
  static constexpr DType value = DType::kU32;
};
template <>
struct DTypeOf<uint16_t> {
  static constexpr DType value = DType::kU16;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};

// Loads and stores of the two storage types of activations and weights. Rounding is to nearest, ties to even; NaN
// stays NaN (quiet). Always inlined (see TY_SIMD) and branch-free where it matters, so loops over them vectorise.
TY_INLINE float ToFloat(float x) {
  return x;
}
TY_INLINE float ToFloat(BFloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  return __builtin_bit_cast(float, bits);
}
template <typename T>
T FromFloat(float x);
template <>
TY_INLINE float FromFloat<float>(float x) {
  return x;
}
template <>
TY_INLINE BFloat16 FromFloat<BFloat16>(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40;
  return {static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? quiet_nan : rounded)};
}

}  // namespace trainyard::kernels
