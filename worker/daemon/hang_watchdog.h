// Tells whether one rank has stopped moving (CP-35). Pure; `now` is monotonic time.
//
//   section "train":  silent for longer than max(floor, factor * p99 of the last 100 step times); off until
//                     `warmup_steps` steps of this process are done
//   other sections:   no sign of life (step, change of section, or the polls of the stop flag that the runner passes
//                     on) for longer than max(floor, section_timeout)
//
// "prepare" and what comes before are the business of the prepare timeout.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace trainyard::daemon {

struct HangOptions {
  double factor = 5;
  absl::Duration floor = absl::Seconds(60);
  int warmup_steps = 5;
  absl::Duration section_timeout = absl::Minutes(10);
};

class HangWatchdog {
 public:
  explicit HangWatchdog(const HangOptions& options) : options_(options) {}

  // The rank has passed the start barrier. Before, it cannot hang.
  void Start(int64_t step, absl::Duration now);
  void Progress(int64_t step, absl::string_view section, absl::Duration now);

  // Infinite while the watchdog is off.
  absl::Duration Timeout() const;
  bool Expired(absl::Duration now) const { return started_ && now - last_sign_ > Timeout(); }
  absl::Duration silence(absl::Duration now) const { return now - last_sign_; }
  int64_t step() const { return step_; }
  const std::string& section() const { return section_; }

 private:
  const HangOptions options_;
  bool started_ = false;
  int64_t step_ = 0;
  int64_t steps_done_ = 0;  // by this process
  std::string section_ = "train";
  absl::Duration last_sign_;
  absl::Duration last_step_;
  std::deque<absl::Duration> step_times_;
};

}  // namespace trainyard::daemon
