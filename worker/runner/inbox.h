// What the daemon has said, for the main thread and the checkpoint writer to wait for.
#pragma once

#include <deque>
#include <map>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "proto/v1/link.pb.h"
#include "worker/runner/stop_flag.h"

namespace trainyard::runner {

class Inbox {
 public:
  explicit Inbox(StopFlag* stop) : stop_(stop) {}

  // From the link's thread.
  void Put(v1::RunnerCommand command);
  // Wakes everybody who waits, to look at the stop flag.
  void Wake() { changed_.NotifyAll(); }

  // DeadlineExceeded after `timeout`.
  absl::StatusOr<v1::Launch> WaitLaunch(absl::Duration timeout);
  // Cancelled once a stop is asked for. Has no timeout of its own: the coordinator's barrier has one.
  absl::StatusOr<v1::StartTraining> WaitStart();
  // The verdict on the commit of `step`: OK, or the coordinator's refusal. DeadlineExceeded after `timeout`, Cancelled
  // if the stop will not wait.
  absl::Status WaitCommit(int64_t step, absl::Duration timeout);
  // The next word on trials; nothing if none comes within `timeout`.
  std::optional<v1::TrialOutcomes> TakeTrialOutcomes(absl::Duration timeout);

 private:
  // Looks again at least this often, as a stop may come by a signal.
  static constexpr absl::Duration kLook = absl::Milliseconds(50);

  StopFlag* const stop_;
  Mutex mutex_;
  CondVar changed_;
  std::optional<v1::Launch> launch_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::StartTraining> start_ ABSL_GUARDED_BY(mutex_);
  std::map<int64_t, v1::CheckpointReply> replies_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::TrialOutcomes> trial_outcomes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace trainyard::runner
