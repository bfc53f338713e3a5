#include "worker/runner/link_trials.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace trainyard::runner {
namespace {

// How often the stop flag is looked at while nothing comes.
constexpr absl::Duration kLook = absl::Milliseconds(50);

}  // namespace

absl::StatusOr<std::vector<v1::TrialOutcome>> LinkTrials::Run(
    const v1::TrialGeneration& generation, const std::function<void(const v1::TrialOutcome&)>& on_outcome) {
  if (generation.ByteSizeLong() > kMaxGenerationBytes) {
    return absl::InvalidArgumentError(absl::StrCat("generation ", generation.number(), " of ", generation.specs_size(),
                                                   " trials has ", generation.ByteSizeLong(), " bytes, more than ",
                                                   kMaxGenerationBytes, "; ask for fewer at a time"));
  }
  const std::string section = context_->section();
  context_->EnterSection("trials");
  absl::StatusOr<std::vector<v1::TrialOutcome>> outcomes = Wait(generation, on_outcome);
  context_->EnterSection(section);
  return outcomes;
}

absl::StatusOr<std::vector<v1::TrialOutcome>> LinkTrials::Wait(
    const v1::TrialGeneration& generation, const std::function<void(const v1::TrialOutcome&)>& on_outcome) {
  v1::RunnerReport request;
  *request.mutable_trials() = generation;
  report_(request);
  const int count = generation.specs_size();
  std::vector<std::optional<v1::TrialOutcome>> known(static_cast<size_t>(count));
  int done = 0, failed = 0;
  const auto tell = [&] {
    context_->ReportMoment({{"generation_number", static_cast<double>(generation.number())},
                            {"generation_trials", count},
                            {"generation_trials_done", done},
                            {"generation_trials_failed", failed}});
  };
  tell();
  while (true) {
    const std::optional<v1::TrialOutcomes> news = inbox_->TakeTrialOutcomes(kLook);
    if (context_->ShouldStop()) {
      return absl::CancelledError(absl::StrCat("stopped while generation ", generation.number(), " ran"));
    }
    // One that was asked for before and given up may still be answered.
    if (!news || news->generation() != generation.number()) continue;
    if (news->code() != 0) return absl::Status(static_cast<absl::StatusCode>(news->code()), news->message());
    const int done_before = done;
    for (const v1::TrialOutcome& outcome : news->outcomes()) {
      if (outcome.index() < 0 || outcome.index() >= count) {
        return absl::DataLossError(absl::StrCat("generation ", generation.number(), ": an outcome of trial ",
                                                outcome.index(), ", of ", count, " asked for"));
      }
      std::optional<v1::TrialOutcome>& mine = known[static_cast<size_t>(outcome.index())];
      if (mine) continue;
      mine = outcome;
      ++done;
      if (outcome.state() != v1::JOB_STATE_SUCCEEDED) ++failed;
      if (on_outcome) on_outcome(outcome);
    }
    if (done != done_before) tell();
    if (!news->done()) continue;
    std::vector<v1::TrialOutcome> outcomes;
    for (std::optional<v1::TrialOutcome>& outcome : known) {
      if (!outcome) {
        return absl::DataLossError(absl::StrCat("generation ", generation.number(), " is said to be done, but trial ",
                                                outcomes.size(), " has no outcome"));
      }
      outcomes.push_back(*std::move(outcome));
    }
    return outcomes;
  }
}

}  // namespace trainyard::runner
