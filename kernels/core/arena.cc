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

Arena Arena::CountOnly(Device device) {
  Arena arena;
  arena.device_ = device;
  return arena;
}

absl::Status Arena::ReserveRegion(int64_t bytes, MemoryKind kind, Region* region) {
  const int64_t capacity = RoundUp(std::max<int64_t>(bytes, 1));
  absl::StatusOr<void*> memory = AllocateMemory(kind, capacity);
  if (!memory.ok()) {
    return absl::Status(
        memory.status().code(),
        absl::StrCat("cannot reserve ", bytes, " bytes of memory for the run: ", memory.status().message()));
  }
  *region = {.kind = kind, .base = static_cast<char*>(*memory), .capacity = capacity};
  return absl::OkStatus();
}

absl::StatusOr<Arena> Arena::Reserve(const Arena& counted) {
  Arena arena;
  arena.device_ = counted.device_;
  const bool is_cpu = counted.device_ == Device::kCpu;
  absl::Status status =
      ReserveRegion(counted.main_.used, is_cpu ? MemoryKind::kHost : MemoryKind::kDevice, &arena.main_);
  if (status.ok() && !is_cpu) status = ReserveRegion(counted.shared_.used, MemoryKind::kPinned, &arena.shared_);
  if (!status.ok()) return status;
  return arena;
}

absl::StatusOr<Arena> Arena::Reserve(int64_t bytes) {
  Arena arena;
  if (absl::Status status = ReserveRegion(bytes, MemoryKind::kHost, &arena.main_); !status.ok()) return status;
  return arena;
}

Arena::Arena(Arena&& other) noexcept
    : device_(other.device_),
      main_(std::exchange(other.main_, {})),
      shared_(std::exchange(other.shared_, {})),
      plan_(std::move(other.plan_)),
      pinned_plan_(std::move(other.pinned_plan_)) {}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(main_, other.main_);
  std::swap(shared_, other.shared_);
  std::swap(plan_, other.plan_);
  std::swap(pinned_plan_, other.pinned_plan_);
  return *this;
}

Arena::~Arena() {
  for (const Region& region : {main_, shared_}) {
    if (region.base != nullptr) FreeMemory(region.kind, region.base, region.capacity);
  }
}

TensorView Arena::Allocate(const std::string& purpose, DType dtype, std::initializer_list<int64_t> shape) {
  return AllocateFrom(main_, purpose, dtype, shape);
}

TensorView Arena::AllocateShared(const std::string& purpose, DType dtype, std::initializer_list<int64_t> shape) {
  return AllocateFrom(device_ == Device::kCpu ? main_ : shared_, purpose, dtype, shape);
}

TensorView Arena::AllocateFrom(Region& region, const std::string& purpose, DType dtype,
                               std::initializer_list<int64_t> shape) {
  const int64_t bytes = RoundUp(TensorView(nullptr, dtype, shape).bytes());
  if (!counts_only()) TY_CHECK_LE(region.used + bytes, region.capacity);
  char* const base = counts_only() ? reinterpret_cast<char*>(kFakeBase) : region.base;
  TensorView view(base + region.used, dtype, shape);
  region.used += bytes;
  plan_[purpose] += bytes;
  if (&region == &shared_) pinned_plan_[purpose] += bytes;
  return view;
}

}  // namespace trainyard::kernels
