// Jobs that a running job asks for. The service commits a generation whole before it runs any of it, so a driver that
// dies and comes back asks again for what it asked before and gets the same outcomes: a search needs no other memory
// than its seed and its outcomes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/v1/job.pb.h"
#include "proto/v1/trial.pb.h"

namespace trainyard::jobs {

class Trials {
 public:
  virtual ~Trials() = default;

  // Runs `generation.specs` as jobs with this one as parent and returns one outcome each, in order, when all have ended
  // (failed ones among them). A number that was asked for before, by this attempt or an earlier one, is not run again.
  // `on_outcome`, which may be empty, is called on this thread as they end, in any order, once each.
  // Cancelled if the job is asked to stop meanwhile; the trials go on, and the next attempt gets them.
  // FailedPrecondition if the number is committed with other specs; InvalidArgument, naming the trial and the field,
  // if a spec is wrong; then nothing of the generation exists.
  virtual absl::StatusOr<std::vector<v1::TrialOutcome>> Run(
      const v1::TrialGeneration& generation, const std::function<void(const v1::TrialOutcome&)>& on_outcome) = 0;
};

}  // namespace trainyard::jobs
