// Ranks that are threads of one process: for tests, and for several ranks in one program. Data moves by memcpy between
// the callers' buffers; a rank waits for the others at rendezvous points under one mutex.
#pragma once

#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "worker/comm/communicator.h"

namespace trainyard::comm {

struct LocalOptions {
  absl::Duration timeout = absl::Minutes(5);  // of one call
};

// One communicator a rank; give each to its thread. Destroying one while others still talk fails their calls with
// Unavailable.
std::vector<std::unique_ptr<Communicator>> MakeLocalCommunicators(int ranks, const LocalOptions& options = {});

}  // namespace trainyard::comm
