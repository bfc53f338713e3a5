#include "kernels/core/simt/waits.h"

#include <atomic>

namespace trainyard::simt {
namespace {

std::atomic<int64_t> waits{0};
std::atomic<int64_t> copied_bytes{0};

}  // namespace

int64_t WaitCount() {
  return waits.load(std::memory_order_relaxed);
}

int64_t CopiedBytes() {
  return copied_bytes.load(std::memory_order_relaxed);
}

void CountWait() {
  waits.fetch_add(1, std::memory_order_relaxed);
}

void CountCopy(int64_t bytes) {
  copied_bytes.fetch_add(bytes, std::memory_order_relaxed);
}

}  // namespace trainyard::simt
