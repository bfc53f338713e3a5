#pragma once

#include "kernels/quant/cast.h"

namespace trainyard::kernels::internal {

// Calls body(a null pointer to the narrow type).
template <typename Body>
void DispatchNarrow(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kBF16:
      return body(static_cast<BFloat16*>(nullptr));
    case DType::kF16:
      return body(static_cast<Float16*>(nullptr));
    case DType::kF8E4M3:
      return body(static_cast<Float8E4M3*>(nullptr));
    case DType::kF8E5M2:
      return body(static_cast<Float8E5M2*>(nullptr));
    default:
      TY_CHECK(false && "a cast between f32 and a narrow float got another dtype");
  }
}

void NarrowCpu(const NarrowArgs& args, Stream& stream);
void WidenCpu(const WidenArgs& args, Stream& stream);
void NarrowCuda(const NarrowArgs& args, Stream& stream);
void WidenCuda(const WidenArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
