#include "kernels/core/dtype.h"

namespace trainyard::kernels {

size_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
    case DType::kU16:
      return 2;
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kU8:
      return 1;
  }
  __builtin_unreachable();
}

absl::string_view Name(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kBF16:
      return "bf16";
    case DType::kF16:
      return "f16";
    case DType::kF8E4M3:
      return "f8_e4m3";
    case DType::kF8E5M2:
      return "f8_e5m2";
    case DType::kI32:
      return "i32";
    case DType::kU32:
      return "u32";
    case DType::kU16:
      return "u16";
    case DType::kU8:
      return "u8";
  }
  __builtin_unreachable();
}

}  // namespace trainyard::kernels
