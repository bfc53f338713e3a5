// An ordered queue of work on one device. On the CPU an op runs when it is called, its work split over the stream's
// threads; on a GPU it is enqueued. Ops never synchronise.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "kernels/core/thread_pool.h"

namespace trainyard::kernels {

enum class Device { kCpu, kCuda };

class Stream {
 public:
  // A CPU stream with `threads` >= 1 threads, the caller's own among them.
  explicit Stream(int threads) : pool_(threads) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Device device() const { return Device::kCpu; }
  ThreadPool& pool() { return pool_; }
  int threads() const { return pool_.threads(); }

  // Waits for all that was enqueued and returns the first error among it. Call once a step.
  absl::Status Synchronize() { return absl::OkStatus(); }

 private:
  ThreadPool pool_;
};

}  // namespace trainyard::kernels
