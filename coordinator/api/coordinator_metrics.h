// The coordinator's Prometheus metrics (CP-68, CP-69); those of gRPC calls are in rpc_metrics.h. No label holds a job,
// a user or a text of theirs but for queues, which users name: at most kMaxQueues have series at a time, more share the
// label "other", and those of a queue go when the last job in it is deleted. Series whose labels are known exist from
// the start, at 0.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/core/core.h"

namespace prometheus {
class Registry;
}

namespace trainyard::coordinator {

// Safe from any thread; the registry may be scraped at any time.
class CoordinatorMetrics {
 public:
  static constexpr size_t kMaxQueues = 50;

  explicit CoordinatorMetrics(uint64_t leader_epoch);
  ~CoordinatorMetrics();

  void Count(const Effects& effects);
  void Commit(absl::Duration took, size_t writes, const absl::Status& status);
  void SchedulePass(absl::Duration took);
  // The gauges; costs a walk over all jobs, so once a second is enough.
  void Observe(const Core& core, Now now);
  void SetWatchers(int watchers, int64_t dropped);
  void SetWritable(bool writable);
  void Submit(absl::Duration took);

  const std::shared_ptr<prometheus::Registry>& registry() const;

 private:
  struct Families;
  const std::unique_ptr<Families> families_;
};

}  // namespace trainyard::coordinator
