// Trials over the daemon link: the request goes to the coordinator by way of the daemon, which sends it again in every
// new session, and outcomes come back as trials end.
#pragma once

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/v1/trial.pb.h"
#include "worker/jobs/trials.h"
#include "worker/runner/inbox.h"
#include "worker/runner/link.h"
#include "worker/runner/rank_context.h"

namespace trainyard::runner {

// A generation is one frame on the link and one message of the session, which takes more (kMaxSessionMessageBytes of
// proto/rpc/channel.h). The rest of the frame is for what goes around it.
inline constexpr size_t kMaxGenerationBytes = kMaxFrameBytes - (64 << 10);

class LinkTrials final : public jobs::Trials {
 public:
  // All are borrowed.
  LinkTrials(RankContext* context, Inbox* inbox, ReportFunction report)
      : context_(context), inbox_(inbox), report_(std::move(report)) {}

  // Waits in section "trials", where its polls tell the watchdog that the rank lives, and goes back to the section it
  // was called in. Tells how far it is as numbers of the moment: generation_number, generation_trials,
  // generation_trials_done (the failed ones among them) and generation_trials_failed. InvalidArgument also for a
  // generation above kMaxGenerationBytes; DataLoss if the coordinator's answer does not fit the request.
  absl::StatusOr<std::vector<v1::TrialOutcome>> Run(
      const v1::TrialGeneration& generation, const std::function<void(const v1::TrialOutcome&)>& on_outcome) override;

 private:
  absl::StatusOr<std::vector<v1::TrialOutcome>> Wait(const v1::TrialGeneration& generation,
                                                     const std::function<void(const v1::TrialOutcome&)>& on_outcome);

  RankContext* const context_;
  Inbox* const inbox_;
  const ReportFunction report_;
};

}  // namespace trainyard::runner
