// The embedded store: one SQLite file in WAL mode, synchronous=FULL, held exclusively (CP-56, CP-58).
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/store/store.h"

namespace trainyard::coordinator {

struct SqliteOptions {
  std::string directory;  // holds coordinator.db, its WAL and coordinator.lock; made if it does not exist
  // Events are dropped from the oldest when they are more than `events_kept` or `event_bytes_kept`.
  int64_t events_kept = 20'000;
  int64_t event_bytes_kept = 32 << 20;
  // A job with more points keeps every second, fourth, ... step.
  int64_t metric_points_kept = 20'000;
};

// Checks the file, creates or upgrades the schema, and adds one to the leader epoch before it returns.
// FailedPrecondition: another coordinator has the directory, or a newer release wrote it; DataLoss: the file is
// damaged.
absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const SqliteOptions& options);

}  // namespace trainyard::coordinator
