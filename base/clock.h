// Where time comes from. Everything that decides by time takes a Clock (or plain `now` values), so tests own it.
#pragma once

#include "absl/time/time.h"

namespace trainyard {

class Clock {
 public:
  virtual ~Clock() = default;
  // Wall time: for records and people. It may jump; no lease or order may depend on it.
  virtual absl::Time Now() = 0;
  // Time on a monotonic clock since an arbitrary origin: for leases, timeouts and durations.
  virtual absl::Duration Monotonic() = 0;
};

// The machine's clocks; lives for ever, safe from any thread.
Clock* RealClock();

}  // namespace trainyard
