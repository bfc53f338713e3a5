// An ordered queue of work on one device. On the CPU an op runs when it is called, its work split over the stream's
// threads; on a GPU it is enqueued. Ops never synchronise.
#pragma once

#include "absl/status/status.h"
#include "base/check.h"
#include "kernels/core/device.h"
#include "kernels/core/thread_pool.h"

namespace trainyard::kernels {

class Stream {
 public:
  // A CPU stream with `threads` >= 1 threads, the caller's own among them.
  explicit Stream(int threads) : Stream(Device::kCpu, threads) {}
  // A stream of `device`; a CUDA one of the calling thread's current device, which CheckCudaDevice must have found.
  // `threads` do what only the host can do.
  Stream(Device device, int threads)
      : device_(device), handle_(device == Device::kCuda ? internal::CreateCudaStream() : nullptr), pool_(threads) {}
  ~Stream() {
    if (handle_ != nullptr) internal::DestroyCudaStream(handle_);
  }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Device device() const { return device_; }
  void* handle() const { return handle_; }  // the cudaStream_t, or null

  // The threads, for work of the host. On a CUDA stream this waits for what was enqueued first, since that work reads
  // and writes the same memory.
  ThreadPool& pool() {
    if (handle_ != nullptr) TY_CHECK_OK(internal::SynchronizeCudaStream(handle_));
    return pool_;
  }
  int threads() const { return pool_.threads(); }

  // Waits for all that was enqueued and returns the first error among it. Call once a step.
  absl::Status Synchronize() {
    return handle_ == nullptr ? absl::OkStatus() : internal::SynchronizeCudaStream(handle_);
  }
  // What is enqueued here from now on starts after what `other` has enqueued so far.
  void WaitFor(Stream& other) {
    if (handle_ != nullptr && other.handle_ != nullptr) internal::OrderCudaStreams(handle_, other.handle_);
  }

 private:
  const Device device_;
  void* const handle_;
  ThreadPool pool_;
};

}  // namespace trainyard::kernels
