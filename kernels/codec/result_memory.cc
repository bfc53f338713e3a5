#include "kernels/codec/result_memory.h"

#include <vector>

#include "absl/status/statusor.h"
#include "base/check.h"
#include "base/mutex.h"
#include "kernels/core/device.h"

namespace trainyard::kernels::internal {
namespace {

struct FreeList {
  Mutex mutex;
  std::vector<double*> free ABSL_GUARDED_BY(mutex);
};

// Never destroyed: at exit the driver may be gone before us.
FreeList& TheFreeList() {
  static FreeList* const list = new FreeList;
  return *list;
}

}  // namespace

ResultMemory::ResultMemory() : data_(nullptr) {
  {
    MutexLock lock(&TheFreeList().mutex);
    std::vector<double*>& free = TheFreeList().free;
    if (!free.empty()) {
      data_ = free.back();
      free.pop_back();
      return;
    }
  }
  const absl::StatusOr<void*> memory =
      AllocateMemory(MemoryKind::kPinned, kDoubles * static_cast<int64_t>(sizeof(double)));
  TY_CHECK_OK(memory);
  data_ = static_cast<double*>(*memory);
}

ResultMemory::~ResultMemory() {
  MutexLock lock(&TheFreeList().mutex);
  TheFreeList().free.push_back(data_);
}

}  // namespace trainyard::kernels::internal
