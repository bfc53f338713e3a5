// The one training loop: between two units all ranks agree on what comes next, so they stop and checkpoint at the same
// step.
//
//   agree: stop? checkpoint?  ->  [snapshot]  ->  RunUnit  ->  report  ->  agree ...
//
// A stop (StopRunner or SIGTERM on any rank) makes a checkpoint and leaves. A stop at once aborts the communicators,
// and the loop leaves from wherever it is.
#pragma once

#include <functional>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "proto/spec/job_options.h"
#include "proto/v1/job.pb.h"
#include "worker/ckpt/checkpointer.h"
#include "worker/comm/communicator.h"
#include "worker/jobs/job.h"
#include "worker/runner/rank_context.h"
#include "worker/runner/stop_flag.h"

namespace trainyard::runner {

struct LoopParts {
  jobs::Job* job = nullptr;
  RankContext* context = nullptr;
  comm::Communicator* control = nullptr;
  ckpt::Checkpointer* checkpointer = nullptr;
  StopFlag* stop = nullptr;
  Clock* clock = RealClock();
  spec::CheckpointOptions checkpoint;
  int64_t total_steps = 0;  // of the job: one that has them all behind it (it died while exporting) only finishes
  // Told after each unit, for the rank's log; may be empty.
  std::function<void(const jobs::UnitResult&)> on_unit = nullptr;
};

struct LoopEnd {
  bool is_done = false;  // else stopped
  v1::JobResult result;  // when done
};

// Runs the job from its present step to the end or the stop. A failure of the checkpointer is no error of the loop; one
// of the job or the communicators is.
absl::StatusOr<LoopEnd> RunLoop(const LoopParts& parts);

}  // namespace trainyard::runner
