// The devices ops run on, and memory that they can reach. A program is built for one backend:
//   "none"      CPU only;
//   "cuda"      --config=cuda: CUDA kernels compiled by nvcc;
//   "emulated"  --config=simt: the same kernels compiled for the CPU (simt/emulator.h), for tests.
//
// Memory of a CUDA device is managed: one address for host and device. The host may touch it only while the device has
// nothing enqueued that does, that is after Stream::Synchronize.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace trainyard::kernels {

enum class Device { kCpu, kCuda };

enum class MemoryKind {
  kHost,
  kDevice,  // managed; lives on the calling thread's current device until the host touches it
  kPinned,  // lives on the host; the device reads and writes it over the bus. For small things that both touch.
};

absl::string_view DeviceBackend();

// OK if this program can run ops on a CUDA device; else why not (built without CUDA, no driver, no device).
absl::Status CheckCudaDevice();

// Zeroed, aligned to 256 bytes (kHost: to a page). ResourceExhausted if there is not enough.
absl::StatusOr<void*> AllocateMemory(MemoryKind kind, int64_t bytes);
void FreeMemory(MemoryKind kind, void* memory, int64_t bytes);

// Waits for everything on every stream of the current device. For tests; a training step uses Stream::Synchronize.
absl::Status SynchronizeDevice();

namespace internal {

// What Stream is made of, by backend. `stream` is a cudaStream_t.
void* CreateCudaStream();
void DestroyCudaStream(void* stream);
absl::Status SynchronizeCudaStream(void* stream);
// Later work of `stream` starts after what `other` has enqueued so far.
void OrderCudaStreams(void* stream, void* other);

// AllocateMemory for the kinds that need the backend.
absl::StatusOr<void*> AllocateCudaMemory(MemoryKind kind, int64_t bytes);
void FreeCudaMemory(MemoryKind kind, void* memory, int64_t bytes);

}  // namespace internal
}  // namespace trainyard::kernels
