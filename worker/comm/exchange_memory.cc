#include "worker/comm/exchange_memory.h"

#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace trainyard::comm {

ExchangeMemory::ExchangeMemory(ExchangeMemory&& other) noexcept
    : kind_(other.kind_), data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

void ExchangeMemory::SetKind(kernels::MemoryKind kind) {
  TY_CHECK(data_ == nullptr || kind == kind_);
  kind_ = kind;
}

absl::Status ExchangeMemory::Grow(int64_t bytes) {
  if (bytes <= bytes_) return absl::OkStatus();
  Free();
  TY_ASSIGN_OR_RETURN(data_, kernels::AllocateMemory(kind_, bytes));
  bytes_ = bytes;
  return absl::OkStatus();
}

void ExchangeMemory::Free() {
  if (data_ != nullptr) kernels::FreeMemory(kind_, data_, bytes_);
  data_ = nullptr;
  bytes_ = 0;
}

}  // namespace trainyard::comm
