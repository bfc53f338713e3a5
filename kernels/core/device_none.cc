// The backend of a program built without CUDA.
#include "base/check.h"
#include "kernels/core/device.h"
#include "kernels/core/device_copy.h"

namespace trainyard::kernels {

absl::string_view DeviceBackend() {
  return "none";
}

absl::Status CheckCudaDevice() {
  return absl::FailedPreconditionError("this program was built without CUDA; build it with --config=cuda");
}

absl::Status SynchronizeDevice() {
  return absl::OkStatus();
}

namespace internal {

void* CreateCudaStream() {
  TY_CHECK(false && "a CUDA stream in a program built without CUDA");
  return nullptr;
}
void* CreateCudaCopyStream() {
  return CreateCudaStream();
}
void EnqueueCudaCopy(void*, void*, const void*, int64_t) {}
void DestroyCudaStream(void*) {}
absl::Status SynchronizeCudaStream(void*) {
  return absl::OkStatus();
}
void OrderCudaStreams(void*, void*) {}
absl::StatusOr<void*> AllocateCudaMemory(MemoryKind, int64_t) {
  return CheckCudaDevice();
}
void FreeCudaMemory(MemoryKind, void*, int64_t) {}

}  // namespace internal
}  // namespace trainyard::kernels
