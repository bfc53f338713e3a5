#include "kernels/core/device.h"

#include <sys/mman.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace trainyard::kernels {

absl::StatusOr<void*> AllocateMemory(MemoryKind kind, int64_t bytes) {
  bytes = std::max<int64_t>(bytes, 1);
  if (kind != MemoryKind::kHost) return internal::AllocateCudaMemory(kind, bytes);
  void* memory = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return absl::ResourceExhaustedError(absl::StrCat("cannot reserve ", bytes, " bytes"));
  // Large pages save about a tenth of the time of passes over big tensors; where the kernel has none, nothing is lost.
  madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  return memory;
}

void FreeMemory(MemoryKind kind, void* memory, int64_t bytes) {
  bytes = std::max<int64_t>(bytes, 1);
  if (kind == MemoryKind::kHost) {
    munmap(memory, static_cast<size_t>(bytes));
  } else {
    internal::FreeCudaMemory(kind, memory, bytes);
  }
}

}  // namespace trainyard::kernels
