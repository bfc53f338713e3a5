#include "coordinator/core/timing.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace trainyard::coordinator {

absl::Status Validate(const Timing& timing) {
  std::vector<std::string> problems;
  const auto at_least = [&](const char* name, absl::Duration value, const char* rule, absl::Duration bound) {
    if (value >= bound) return;
    problems.push_back(absl::StrCat(name, ": ", absl::FormatDuration(value), " must be at least ", rule, " = ",
                                    absl::FormatDuration(bound)));
  };
  at_least("heartbeat_interval", timing.heartbeat_interval, "one millisecond", absl::Milliseconds(1));
  at_least("lease_ttl", timing.lease_ttl, "its minimum", timing.minimum_lease_ttl);
  at_least("lease_ttl", timing.lease_ttl, "4 x heartbeat_interval", 4 * timing.heartbeat_interval);
  at_least("failover_grace", timing.failover_grace, "2 x lease_ttl", 2 * timing.lease_ttl);
  at_least("self_fence_after", timing.self_fence_after, "2 x failover_grace", 2 * timing.failover_grace);
  at_least("prepare_timeout", timing.prepare_timeout, "lease_ttl", timing.lease_ttl);
  at_least("barrier_timeout", timing.barrier_timeout, "heartbeat_interval", timing.heartbeat_interval);
  at_least("retention_interval", timing.retention_interval, "one millisecond", absl::Milliseconds(1));
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "; "));
}

}  // namespace trainyard::coordinator
