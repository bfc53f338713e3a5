// The backend of a program built for CUDA devices.
#include <cuda_runtime_api.h>

#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/core/device.h"
#include "kernels/core/device_copy.h"

namespace trainyard::kernels {
namespace {

absl::Status ToStatus(cudaError_t error, absl::string_view call) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat(call, ": ", cudaGetErrorName(error), ": ", cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(message);
  return absl::InternalError(message);
}

// For calls that fail only when the context is lost; a rank is one process, which ends then.
void Must(cudaError_t error, const char* call) {
  const absl::Status status = ToStatus(error, call);
  TY_CHECK_OK(status);
}

}  // namespace

absl::string_view DeviceBackend() {
  return "cuda";
}

absl::Status CheckCudaDevice() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no CUDA device can be used: ", error == cudaSuccess ? "none is visible" : cudaGetErrorString(error)));
  }
  return absl::OkStatus();
}

absl::Status SynchronizeDevice() {
  if (!CheckCudaDevice().ok()) return absl::OkStatus();
  return ToStatus(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

namespace internal {

void* CreateCudaStream() {
  cudaStream_t stream = nullptr;
  Must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return stream;
}

void* CreateCudaCopyStream() {
  return CreateCudaStream();
}

// Default: from where the addresses are, and managed memory from where it prefers to be.
void EnqueueCudaCopy(void* stream, void* to, const void* from, int64_t bytes) {
  Must(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, static_cast<cudaStream_t>(stream)),
       "cudaMemcpyAsync");
}

void DestroyCudaStream(void* stream) {
  // A lost context has been reported by Synchronize; there is nothing more to say here.
  (void)cudaStreamDestroy(static_cast<cudaStream_t>(stream));
}

absl::Status SynchronizeCudaStream(void* stream) {
  return ToStatus(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "cudaStreamSynchronize");
}

void OrderCudaStreams(void* stream, void* other) {
  cudaEvent_t event = nullptr;
  Must(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
  Must(cudaEventRecord(event, static_cast<cudaStream_t>(other)), "cudaEventRecord");
  Must(cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), event, 0), "cudaStreamWaitEvent");
  Must(cudaEventDestroy(event), "cudaEventDestroy");  // freed once the wait is over
}

absl::StatusOr<void*> AllocateCudaMemory(MemoryKind kind, int64_t bytes) {
  if (absl::Status status = CheckCudaDevice(); !status.ok()) return status;
  void* memory = nullptr;
  const size_t size = static_cast<size_t>(bytes);
  if (kind == MemoryKind::kPinned) {
    absl::Status status = ToStatus(cudaHostAlloc(&memory, size, cudaHostAllocPortable), "cudaHostAlloc");
    if (!status.ok()) return status;
    std::memset(memory, 0, size);
    return memory;
  }
  absl::Status status =
      ToStatus(cudaMallocManaged(&memory, size, cudaMemAttachGlobal), absl::StrCat("cudaMallocManaged(", bytes, ")"));
  if (!status.ok()) return status;
  int device = 0;
  Must(cudaGetDevice(&device), "cudaGetDevice");
  // Pages stay on the device: the host's rare reads (checkpoints, exports) bring them over and they go back.
  cudaMemLocation place = {};
  place.type = cudaMemLocationTypeDevice;
  place.id = device;
  // Refused where the driver has no page migration; the memory works without the advice.
  (void)cudaMemAdvise(memory, size, cudaMemAdviseSetPreferredLocation, place);
  (void)cudaGetLastError();
  status = ToStatus(cudaMemset(memory, 0, size), "cudaMemset");
  if (status.ok()) status = ToStatus(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  if (!status.ok()) {
    (void)cudaFree(memory);
    return status;
  }
  return memory;
}

void FreeCudaMemory(MemoryKind kind, void* memory, int64_t) {
  (void)(kind == MemoryKind::kPinned ? cudaFreeHost(memory) : cudaFree(memory));
}

}  // namespace internal
}  // namespace trainyard::kernels
