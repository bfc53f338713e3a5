// All memory of a run, reserved once. Persistent blocks are planned by purpose and never freed; temporaries live on a
// stack. A plan is made by running the same code over an arena that only counts (no backing memory), so that what is
// printed before step 1 is what is used.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

// Bytes by purpose: "weights", "gradients", "moments", "activations", "workspace", "communication", ...
using MemoryPlan = std::map<std::string, int64_t>;

class Arena {
 public:
  // Counts only: views have shapes and dtypes but must not be dereferenced (their data is a non-null fake address).
  static Arena CountOnly(Device device = Device::kCpu);
  // Reserves on `device` exactly what `counted` has counted for it; ResourceExhausted if that cannot be had. Memory is
  // zero.
  static absl::StatusOr<Arena> Reserve(const Arena& counted);
  // The same for `bytes` of the CPU.
  static absl::StatusOr<Arena> Reserve(int64_t bytes);

  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();

  bool counts_only() const { return main_.base == nullptr; }
  Device device() const { return device_; }

  // A block for the arena's life, aligned to 64 bytes, booked under `purpose`. Aborts if the reservation is too small:
  // the plan and the run disagree, which is our bug.
  TensorView Allocate(const std::string& purpose, DType dtype, std::initializer_list<int64_t> shape);
  // The same in pinned memory of the host, if the device is not the CPU: for small things that host and device take
  // turns with at every step (tokens, losses), and for what rests there while the device does without it.
  TensorView AllocateShared(const std::string& purpose, DType dtype, std::initializer_list<int64_t> shape);

  int64_t used_bytes() const { return main_.used + shared_.used; }  // with alignment
  const MemoryPlan& plan() const { return plan_; }
  // What of it AllocateShared has taken. Nothing on the CPU, all of whose memory is the host's.
  const MemoryPlan& pinned_plan() const { return pinned_plan_; }

 private:
  struct Region {
    MemoryKind kind = MemoryKind::kHost;
    char* base = nullptr;
    int64_t capacity = 0;
    int64_t used = 0;
  };

  Arena() = default;
  static absl::Status ReserveRegion(int64_t bytes, MemoryKind kind, Region* region);
  TensorView AllocateFrom(Region& region, const std::string& purpose, DType dtype,
                          std::initializer_list<int64_t> shape);

  Device device_ = Device::kCpu;
  Region main_, shared_;  // on the CPU all is in main_
  MemoryPlan plan_, pinned_plan_;
};

}  // namespace trainyard::kernels
