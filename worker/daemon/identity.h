// Who this worker is: an id that stays with its state folder, and a counter and a fresh id of this start.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace trainyard::daemon {

struct Identity {
  std::string worker_id;    // "<host>-<8 hex digits>", made once
  int64_t start_count = 0;  // 1, 2, ...: the larger is the newer daemon
  std::string incarnation;
};

// Reads state_dir/worker_id and start_count, counts this start, and writes back durably. The caller holds the folder's
// lock.
absl::StatusOr<Identity> NextIdentity(const std::string& state_dir, const std::string& host);

}  // namespace trainyard::daemon
