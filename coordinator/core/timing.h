// The timing table of control-plane.md, section 4. Validated together, since the values only make sense together.
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace trainyard::coordinator {

struct Timing {
  absl::Duration heartbeat_interval = absl::Seconds(3);  // <= lease_ttl / 4
  absl::Duration lease_ttl = absl::Seconds(15);          // >= minimum_lease_ttl
  absl::Duration failover_grace = absl::Seconds(60);     // >= 2 lease_ttl
  absl::Duration self_fence_after = absl::Seconds(600);  // >= 2 failover_grace
  absl::Duration prepare_timeout = absl::Seconds(300);   // assigned until all ranks are ready
  absl::Duration barrier_timeout = absl::Seconds(120);   // first rank ready until all are
  absl::Duration kill_timeout = absl::Seconds(60);       // after SIGKILL
  absl::Duration backoff_reset = absl::Minutes(10);      // an attempt that ran this long starts the back-off anew
  absl::Duration reserve_after = absl::Seconds(300);     // waited this long: later jobs may not pass any more
  absl::Duration request_retention = absl::Hours(24);
  absl::Duration retention_interval = absl::Seconds(60);  // how often what has lived long enough is deleted
  double backoff_scale = 1.0;                             // times every back-off; tests make it small

  // Tests may go below.
  absl::Duration minimum_lease_ttl = absl::Seconds(5);
};

// InvalidArgument with all violated rules.
absl::Status Validate(const Timing& timing);

}  // namespace trainyard::coordinator
