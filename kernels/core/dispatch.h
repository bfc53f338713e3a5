// From run-time device and dtype to code. The only #if on CUDA is here.
#pragma once

#include "base/check.h"
#include "kernels/core/dtype.h"
#include "kernels/core/stream.h"

// TY_SELECT(stream, RmsNormForward)(args, stream): calls internal::RmsNormForwardCpu or, on a CUDA stream,
// internal::RmsNormForwardCuda, where the build has CUDA twins (op_library(cuda = True)).
// TY_SELECT_HOST: for an op without a twin. On a CUDA stream it waits for the device and runs on the host, which can
// reach the device's memory (kernels/core/device.h): right, not fast.
#if defined(TY_CUDA)
#define TY_SELECT(stream, function) \
  ((stream).device() == ::trainyard::kernels::Device::kCuda ? internal::function##Cuda : internal::function##Cpu)
#else
#define TY_SELECT(stream, function) internal::function##Cpu
#endif
#define TY_SELECT_HOST(stream, function) (::trainyard::kernels::WaitForDevice(stream), internal::function##Cpu)

namespace trainyard::kernels {

inline void WaitForDevice(Stream& stream) {
  TY_CHECK_OK(stream.Synchronize());
}

template <typename T>
struct DTypeTag {
  using type = T;
};

// Calls body(DTypeTag<float>) or body(DTypeTag<BFloat16>): the storage types of weights and activations.
template <typename Body>
void DispatchFloat(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::kF32:
      return body(DTypeTag<float>{});
    case DType::kBF16:
      return body(DTypeTag<BFloat16>{});
    default:
      TY_CHECK(false && "an op over float storage got another dtype");
  }
}

}  // namespace trainyard::kernels
