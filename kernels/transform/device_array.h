// A constant table in memory that a device can read: made on the host, copied once.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/check.h"
#include "kernels/core/device.h"

namespace trainyard::kernels::internal {

struct FreeDeviceArray {
  MemoryKind kind = MemoryKind::kHost;
  int64_t bytes = 0;
  void operator()(const void* values) const { FreeMemory(kind, const_cast<void*>(values), bytes); }
};

template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  DeviceArray(const std::vector<T>& values, Device device) {
    const MemoryKind kind = device == Device::kCuda ? MemoryKind::kDevice : MemoryKind::kHost;
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(T));
    const absl::StatusOr<void*> memory = AllocateMemory(kind, bytes);
    TY_CHECK_OK(memory.status());
    std::copy(values.begin(), values.end(), static_cast<T*>(*memory));
    values_ = std::unique_ptr<const T[], FreeDeviceArray>(static_cast<const T*>(*memory), {kind, bytes});
  }

  const T* data() const { return values_.get(); }  // null: empty

 private:
  std::unique_ptr<const T[], FreeDeviceArray> values_;
};

}  // namespace trainyard::kernels::internal
