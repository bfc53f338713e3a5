#include "kernels/core/simt/guard.h"

#include <sys/mman.h>

#include <cstdlib>
#include <iterator>
#include <map>
#include <string>

#include "base/check.h"
#include "base/mutex.h"

namespace trainyard::simt {
namespace {

struct Guard {
  Mutex mutex;
  std::map<void*, int64_t> blocks ABSL_GUARDED_BY(mutex);
  bool closed ABSL_GUARDED_BY(mutex) = false;
};

Guard& TheGuard() {
  static Guard* const guard = new Guard;
  return *guard;
}

bool IsOn() {
  static const bool on = [] {
    const char* value = std::getenv("TRAINYARD_SIMT_GUARD");
    return value != nullptr && std::string(value) == "1";
  }();
  return on;
}

void Protect(Guard& guard, bool closed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(guard.mutex) {
  if (guard.closed == closed) return;
  guard.closed = closed;
  for (const auto& [memory, bytes] : guard.blocks) {
    TY_CHECK_EQ(mprotect(memory, static_cast<size_t>(bytes), closed ? PROT_NONE : PROT_READ | PROT_WRITE), 0);
  }
}

}  // namespace

void AddGuardedMemory(void* memory, int64_t bytes) {
  MutexLock lock(&TheGuard().mutex);
  Protect(TheGuard(), false);
  TheGuard().blocks[memory] = bytes;
}

void RemoveGuardedMemory(void* memory) {
  MutexLock lock(&TheGuard().mutex);
  Protect(TheGuard(), false);
  TheGuard().blocks.erase(memory);
}

void OpenGuardedMemory() {
  if (!IsOn()) return;
  MutexLock lock(&TheGuard().mutex);
  Protect(TheGuard(), false);
}

void CloseGuardedMemory() {
  if (!IsOn()) return;
  MutexLock lock(&TheGuard().mutex);
  Protect(TheGuard(), true);
}

void CheckReachable(const void* pointer) {
  if (!IsOn() || pointer == nullptr) return;
  Guard& guard = TheGuard();
  MutexLock lock(&guard.mutex);
  auto after = guard.blocks.upper_bound(const_cast<void*>(pointer));
  const bool found =
      after != guard.blocks.begin() &&
      static_cast<const char*>(std::prev(after)->first) + std::prev(after)->second >= static_cast<const char*>(pointer);
  TY_CHECK(found && "a kernel was given a pointer to memory that the device cannot reach");
}

}  // namespace trainyard::simt
