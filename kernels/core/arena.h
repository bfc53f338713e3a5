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
  static Arena CountOnly();
  // Reserves exactly `bytes` of that kind; ResourceExhausted if they cannot be had. Memory is zero.
  static absl::StatusOr<Arena> Reserve(int64_t bytes, MemoryKind kind = MemoryKind::kHost);

  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();

  bool counts_only() const { return base_ == nullptr; }

  // A block for the arena's life, aligned to 64 bytes, booked under `purpose`. Aborts if the reservation is too small:
  // the plan and the run disagree, which is our bug.
  TensorView Allocate(const std::string& purpose, DType dtype, std::initializer_list<int64_t> shape);

  int64_t used_bytes() const { return used_; }  // with alignment
  const MemoryPlan& plan() const { return plan_; }

 private:
  Arena() = default;

  char* base_ = nullptr;
  MemoryKind kind_ = MemoryKind::kHost;
  int64_t capacity_ = 0;
  int64_t used_ = 0;
  MemoryPlan plan_;
};

}  // namespace trainyard::kernels
