// The largest leader epoch and fences this worker has ever seen, on disk, so that it refuses smaller ones even after
// its own crash (CP-26, I6).
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trainyard::daemon {

class Fences {
 public:
  // Reads `path` if it exists. DataLoss if it cannot be understood: acting without it would not be safe.
  static absl::StatusOr<Fences> Open(const std::string& path);

  // OK, and durable on disk, if the number is at least the largest seen; else FailedPrecondition with both.
  absl::Status AdmitEpoch(uint64_t leader_epoch);
  absl::Status AdmitFence(int slot, uint64_t fence);

  uint64_t max_epoch() const { return max_epoch_; }
  uint64_t max_fence() const;

 private:
  explicit Fences(std::string path) : path_(std::move(path)) {}
  absl::Status Save() const;

  std::string path_;
  uint64_t max_epoch_ = 0;
  std::map<int, uint64_t> slot_fence_;
};

}  // namespace trainyard::daemon
