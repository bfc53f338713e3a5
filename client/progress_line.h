// One line about how far a job is.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "proto/v1/job.pb.h"

namespace trainyard::client {

// How long the rest takes, from the speed since the first progress seen in this attempt.
class EtaEstimate {
 public:
  // `now` is monotonic. A step that goes back (another attempt) starts anew.
  void Add(int64_t step, absl::Duration now);
  // InfiniteDuration until two steps at different times were seen.
  absl::Duration Remaining(int64_t total_steps) const;

 private:
  bool has_first_ = false;
  int64_t first_step_ = 0;
  int64_t last_step_ = 0;
  absl::Duration first_time_;
  absl::Duration last_time_;
};

// "[=====>    ]  45%  step 450/1000  loss 3.213  12.3k tok/s  ETA 1m 20s", at most `columns` wide. `trials`, if it says
// something, stands for the section while the job waits for them.
std::string ProgressLine(const v1::JobProgress& progress, absl::Duration eta, int columns,
                         const std::string& trials = "");

// 950 -> "950", 12345 -> "12.3k", 1.2e6 -> "1.2M".
std::string ShortNumber(double value);

}  // namespace trainyard::client
