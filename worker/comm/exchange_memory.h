// A block of memory for an exchange, of the device that works on it. Grows, and starts anew as zeros when it does.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/core/device.h"
#include "kernels/core/stream.h"

namespace trainyard::comm {

// What `stream` works on: memory of its device that the host reaches too, between two waits for the stream.
inline kernels::MemoryKind MemoryKindOf(const kernels::Stream& stream) {
  return stream.device() == kernels::Device::kCuda ? kernels::MemoryKind::kDevice : kernels::MemoryKind::kHost;
}

class ExchangeMemory {
 public:
  explicit ExchangeMemory(kernels::MemoryKind kind = kernels::MemoryKind::kHost) : kind_(kind) {}
  ~ExchangeMemory() { Free(); }
  ExchangeMemory(ExchangeMemory&& other) noexcept;
  ExchangeMemory& operator=(ExchangeMemory&&) = delete;

  // Before the first Grow; later only to what it is.
  void SetKind(kernels::MemoryKind kind);

  // At least `bytes`; what was there is lost if it has to grow. ResourceExhausted if there is not enough. Nothing may
  // be enqueued that still uses the old memory.
  absl::Status Grow(int64_t bytes);

  char* data() const { return static_cast<char*>(data_); }
  float* floats() const { return static_cast<float*>(data_); }
  int64_t bytes() const { return bytes_; }

 private:
  void Free();

  kernels::MemoryKind kind_;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace trainyard::comm
