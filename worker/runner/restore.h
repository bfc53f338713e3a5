// Where an attempt begins: at the newest committed checkpoint that all its ranks can read, or at step 0 if none was
// ever committed.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/v1/checkpoint.pb.h"
#include "worker/comm/communicator.h"
#include "worker/jobs/job.h"

namespace trainyard::runner {

struct RestoreOptions {
  std::string job_dir;
  std::vector<v1::CheckpointManifest> committed;  // newest first, as Launch lists them
  int rank = 0;
};

// Restores the newest sound checkpoint of at most `max_step`, or initialises the job if there is none to read. Returns
// the step. DataLoss if some were committed and none of them is sound: starting over would throw work away silently.
absl::StatusOr<int64_t> RestoreNewest(const RestoreOptions& options, jobs::Job& job,
                                      int64_t max_step = std::numeric_limits<int64_t>::max());

// Collective. A file that is damaged for one rank only would leave the ranks at different steps: those ahead go back
// until all agree. Returns the common step.
absl::StatusOr<int64_t> AgreeOnRestore(const RestoreOptions& options, jobs::Job& job, comm::Communicator& control);

}  // namespace trainyard::runner
