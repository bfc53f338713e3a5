// Where the coordinator's records live. The core decides what to write; a Store makes it durable, all or nothing.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/core/effects.h"
#include "coordinator/store/metric_points.h"

namespace trainyard::coordinator {

struct StoredEvent {
  uint64_t revision = 0;
  std::shared_ptr<const v1::Job> job;
};

// Not safe for several threads: one thread owns it.
class Store {
 public:
  virtual ~Store() = default;

  // Everything, as of the last commit.
  virtual absl::StatusOr<Records> Load() = 0;

  // Retained events in order of revision, and the revision before the oldest of them.
  virtual absl::StatusOr<std::vector<StoredEvent>> LoadEvents(uint64_t* compacted_revision) = 0;

  // Applies all of `writes` in order, in one durable transaction, or nothing. ResourceExhausted: the disk is full;
  // Unavailable: an I/O error, worth trying again; DataLoss: a rule of the database was broken (a bug of ours).
  virtual absl::Status Commit(const std::vector<Write>& writes) = 0;

  // Can a transaction be made durable now? Writes a little and takes it back.
  virtual absl::Status Probe() = 0;

  // Of the job, those after `after_step`.
  virtual absl::StatusOr<StoredPoints> ReadMetrics(const std::string& uid, int64_t after_step) = 0;
};

}  // namespace trainyard::coordinator
