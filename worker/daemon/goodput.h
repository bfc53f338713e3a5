// What one rank's wall time was used for, from its assignment until its slot is free (CP-70). Pure: `now` is monotonic.
//
// Most of it the runner tells, with each report. What it cannot tell is the daemon's: the time before its first report
// and after its last, and while no process of it is there. Every second goes to exactly one category, so at any time
// the sum is the wall time up to the rank's last sign, and at the end all of it.
//
//   productive           steps that no attempt had done before
//   lost_progress        steps done again, and the unit that was at work when the rank ended without being done
//   init                 spawning, preparing, connecting
//   recovery             the same, in an attempt that follows one that failed
//   data_wait, checkpoint_save, checkpoint_restore, trials_wait     the runner's sections of these names
//   health_check         while the daemon waits to see that the rank's GPU is well, before and after
//   other                evaluation, export, leaving
#pragma once

#include <map>
#include <string>

#include "absl/time/time.h"
#include "proto/v1/link.pb.h"

namespace trainyard::daemon {

class RankGoodput {
 public:
  using Seconds = std::map<std::string, double>;  // by category

  // The rank was assigned; `waits` until its GPUs are looked at.
  RankGoodput(bool follows_failure, bool waits, absl::Duration now)
      : starting_(follows_failure ? "recovery" : "init"), category_(waits ? "health_check" : starting_), booked_(now) {}

  // Each returns what is to be added now.
  Seconds Starting(absl::Duration now);  // its process is about to be started
  Seconds Report(const v1::RankProgress& progress, absl::Duration now);
  Seconds Ended(bool succeeded, bool checks_gpu, absl::Duration now);  // the process has; its slot may not be free yet
  Seconds Gone(absl::Duration now);                                    // the slot is free

 private:
  // Books the time since the last booking to `category_`, then goes on with another.
  Seconds Switch(const std::string& category, absl::Duration now);

  const std::string starting_;
  std::string category_;      // of the time since booked_; empty while the runner tells
  bool is_training_ = false;  // by the last report
  absl::Duration booked_;     // up to here
};

}  // namespace trainyard::daemon
