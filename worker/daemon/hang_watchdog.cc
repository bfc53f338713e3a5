#include "worker/daemon/hang_watchdog.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace trainyard::daemon {
namespace {

constexpr size_t kWindow = 100;

absl::Duration Percentile99(const std::deque<absl::Duration>& times) {
  std::vector<absl::Duration> sorted(times.begin(), times.end());
  const size_t index = static_cast<size_t>(std::ceil(0.99 * static_cast<double>(sorted.size()))) - 1;
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(index), sorted.end());
  return sorted[index];
}

}  // namespace

void HangWatchdog::Start(int64_t step, absl::Duration now) {
  started_ = true;
  step_ = step;
  last_sign_ = last_step_ = now;
}

void HangWatchdog::Progress(int64_t step, absl::string_view section, absl::Duration now) {
  const bool section_changed = section != section_;
  if (step > step_) {
    step_times_.push_back(now - last_step_);
    if (step_times_.size() > kWindow) step_times_.pop_front();
    steps_done_ += step - step_;
    step_ = step;
    last_step_ = last_sign_ = now;
  } else if (section_changed || section != "train") {
    last_sign_ = now;
    // A step's time is the time in "train": an evaluation between two steps must not stretch the p99.
    if (section_changed && section == "train") last_step_ = now;
  }
  if (section_changed) section_ = std::string(section);
}

absl::Duration HangWatchdog::Timeout() const {
  if (!started_) return absl::InfiniteDuration();
  if (section_ != "train") return std::max(options_.floor, options_.section_timeout);
  if (steps_done_ < options_.warmup_steps || step_times_.empty()) return absl::InfiniteDuration();
  return std::max(options_.floor, options_.factor * Percentile99(step_times_));
}

}  // namespace trainyard::daemon
