#include "worker/runner/inbox.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"

namespace trainyard::runner {

void Inbox::Put(v1::RunnerCommand command) {
  if (command.has_stop()) stop_->Request(command.stop().checkpoint());
  MutexLock lock(&mutex_);
  switch (command.command_case()) {
    case v1::RunnerCommand::kLaunch:
      launch_ = std::move(*command.mutable_launch());
      break;
    case v1::RunnerCommand::kStart:
      start_ = std::move(*command.mutable_start());
      break;
    case v1::RunnerCommand::kCheckpointReply:
      replies_[command.checkpoint_reply().step()] = command.checkpoint_reply();
      break;
    case v1::RunnerCommand::kTrialOutcomes:
      trial_outcomes_.push_back(std::move(*command.mutable_trial_outcomes()));
      break;
    default:
      break;
  }
  changed_.NotifyAll();
}

absl::StatusOr<v1::Launch> Inbox::WaitLaunch(absl::Duration timeout) {
  const absl::Duration deadline = RealClock()->Monotonic() + timeout;
  MutexLock lock(&mutex_);
  while (!launch_) {
    if (RealClock()->Monotonic() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("the daemon sent no launch within ", absl::FormatDuration(timeout)));
    }
    changed_.WaitFor(&mutex_, kLook);
  }
  return *launch_;
}

absl::StatusOr<v1::StartTraining> Inbox::WaitStart() {
  MutexLock lock(&mutex_);
  while (!start_) {
    if (stop_->requested()) return absl::CancelledError("stopped before the start");
    changed_.WaitFor(&mutex_, kLook);
  }
  return *start_;
}

absl::Status Inbox::WaitCommit(int64_t step, absl::Duration timeout) {
  const absl::Duration deadline = RealClock()->Monotonic() + timeout;
  MutexLock lock(&mutex_);
  while (true) {
    if (const auto reply = replies_.find(step); reply != replies_.end()) {
      const v1::CheckpointReply verdict = std::move(reply->second);
      replies_.erase(reply);
      return absl::Status(static_cast<absl::StatusCode>(verdict.code()), verdict.message());
    }
    if (stop_->abandoned()) return absl::CancelledError("the rank must leave at once");
    if (RealClock()->Monotonic() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("no answer to the commit of step ", step, " within ", absl::FormatDuration(timeout)));
    }
    changed_.WaitFor(&mutex_, kLook);
  }
}

std::optional<v1::TrialOutcomes> Inbox::TakeTrialOutcomes(absl::Duration timeout) {
  MutexLock lock(&mutex_);
  if (trial_outcomes_.empty()) changed_.WaitFor(&mutex_, timeout);
  if (trial_outcomes_.empty()) return std::nullopt;
  v1::TrialOutcomes next = std::move(trial_outcomes_.front());
  trial_outcomes_.pop_front();
  return next;
}

}  // namespace trainyard::runner
