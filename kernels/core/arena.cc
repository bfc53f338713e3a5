#include "kernels/core/arena.h"

#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace trainyard::kernels {
namespace {

constexpr int64_t kAlignment = 64;
// Counting arenas hand out addresses from here: non-null, so that optional arguments look present.
constexpr uintptr_t kFakeBase = 1 << 12;

int64_t RoundUp(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

Arena Arena::CountOnly() {
  return Arena();
}

absl::StatusOr<Arena> Arena::Reserve(int64_t bytes, MemoryKind kind) {
  Arena arena;
  arena.kind_ = kind;
  arena.capacity_ = RoundUp(std::max<int64_t>(bytes, 1));
  absl::StatusOr<void*> memory = AllocateMemory(kind, arena.capacity_);
  if (!memory.ok()) {
    return absl::Status(
        memory.status().code(),
        absl::StrCat("cannot reserve ", bytes, " bytes of memory for the run: ", memory.status().message()));
  }
  arena.base_ = static_cast<char*>(*memory);
  return arena;
}

Arena::Arena(Arena&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      kind_(other.kind_),
      capacity_(other.capacity_),
      used_(other.used_),
      plan_(std::move(other.plan_)) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(kind_, other.kind_);
  std::swap(capacity_, other.capacity_);
  std::swap(used_, other.used_);
  std::swap(plan_, other.plan_);
  return *this;
}

Arena::~Arena() {
  if (base_ != nullptr) FreeMemory(kind_, base_, capacity_);
}

TensorView Arena::Allocate(const std::string& purpose, DType dtype, std::initializer_list<int64_t> shape) {
  const int64_t bytes = RoundUp(TensorView(nullptr, dtype, shape).bytes());
  if (!counts_only()) TY_CHECK_LE(used_ + bytes, capacity_);
  char* const base = counts_only() ? reinterpret_cast<char*>(kFakeBase) : base_;
  TensorView view(base + used_, dtype, shape);
  used_ += bytes;
  plan_[purpose] += bytes;
  return view;
}

}  // namespace trainyard::kernels
