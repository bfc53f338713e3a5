// Copies between pinned memory of the host and memory of a device, in order, while streams of the device compute. Who
// shares memory with a copy says what waits for what, by After and Before. No call here waits.
#pragma once

#include "base/check.h"
#include "kernels/core/device.h"
#include "kernels/core/device_copy.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

class CopyStream {
 public:
  // Of the calling thread's current CUDA device, which CheckCudaDevice must have found.
  CopyStream() : handle_(internal::CreateCudaCopyStream()) {}
  ~CopyStream() { internal::DestroyCudaStream(handle_); }
  CopyStream(const CopyStream&) = delete;
  CopyStream& operator=(const CopyStream&) = delete;

  // Enqueues to = from, byte by byte: as many bytes each, of memory kinds kDevice and kPinned, not overlapping.
  void Copy(const TensorView& from, const TensorView& to) {
    TY_CHECK_EQ(from.bytes(), to.bytes());
    if (from.bytes() > 0) internal::EnqueueCudaCopy(handle_, to.data(), from.data(), from.bytes());
  }

  // What is enqueued here from now on starts after what `stream` has enqueued so far.
  void After(Stream& stream) { internal::OrderCudaStreams(handle_, stream.handle()); }
  // What `stream` enqueues from now on starts after what is enqueued here so far. So who waits for `stream` later has
  // waited for these copies.
  void Before(Stream& stream) { internal::OrderCudaStreams(stream.handle(), handle_); }

 private:
  void* const handle_;
};

}  // namespace trainyard::kernels
