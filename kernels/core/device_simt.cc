// The backend of a program built for the emulated device. A kernel has run when its launch returns, and copies run late
// (simt/late_copies.h), but guarded memory (simt/guard.h) stays closed to the host until the stream is synchronised, as
// on a real device.
#include <sys/mman.h>

#include "absl/strings/str_cat.h"
#include "kernels/core/device.h"
#include "kernels/core/device_copy.h"
#include "kernels/core/simt/guard.h"
#include "kernels/core/simt/late_copies.h"
#include "kernels/core/simt/waits.h"

namespace trainyard::kernels {

absl::string_view DeviceBackend() {
  return "emulated";
}

absl::Status CheckCudaDevice() {
  return absl::OkStatus();
}

absl::Status SynchronizeDevice() {
  simt::FinishAllStreams();
  simt::OpenGuardedMemory();
  return absl::OkStatus();
}

namespace internal {

void* CreateCudaStream() {
  return simt::CreateStream(simt::StreamKind::kKernels);
}
void* CreateCudaCopyStream() {
  return simt::CreateStream(simt::StreamKind::kCopies);
}
void EnqueueCudaCopy(void* stream, void* to, const void* from, int64_t bytes) {
  simt::EnqueueCopy(stream, to, from, bytes);
}
void DestroyCudaStream(void* stream) {
  simt::DestroyStream(stream);
}
absl::Status SynchronizeCudaStream(void* stream) {
  simt::CountWait();
  simt::FinishStream(stream);
  simt::OpenGuardedMemory();
  return absl::OkStatus();
}
void OrderCudaStreams(void* stream, void* other) {
  simt::OrderStreams(stream, other);
}

absl::StatusOr<void*> AllocateCudaMemory(MemoryKind, int64_t bytes) {
  void* memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return absl::ResourceExhaustedError(absl::StrCat("cannot reserve ", bytes, " bytes"));
  simt::AddGuardedMemory(memory, bytes);
  return memory;
}

void FreeCudaMemory(MemoryKind, void* memory, int64_t bytes) {
  simt::RemoveGuardedMemory(memory);
  munmap(memory, static_cast<size_t>(bytes));
}

}  // namespace internal
}  // namespace trainyard::kernels
