// Exponential back-off with jitter: initial * 2^n up to a maximum, each value spread by +-20 % (CP-32, reconnects).
#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace trainyard {

struct BackoffOptions {
  absl::Duration initial;
  absl::Duration maximum;
  double jitter = 0.2;  // relative, 0..1
};

// Wait before retry number `attempt` (0, 1, ...). Pure: the jitter comes from hashing (seed, attempt).
absl::Duration Backoff(const BackoffOptions& options, int attempt, uint64_t seed);

}  // namespace trainyard
