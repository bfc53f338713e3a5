#include "worker/daemon/goodput.h"

#include <algorithm>

namespace trainyard::daemon {

RankGoodput::Seconds RankGoodput::Switch(const std::string& category, absl::Duration now) {
  Seconds seconds;
  if (now > booked_) {
    seconds[category_] = absl::ToDoubleSeconds(now - booked_);
    booked_ = now;
  }
  category_ = category;
  return seconds;
}

RankGoodput::Seconds RankGoodput::Starting(absl::Duration now) {
  return Switch(starting_, now);
}

// A report comes a moment after it was made. Only the first one's own time is told from the daemon's by when it comes;
// from then on the runner's clock counts, so moments do not add up.
RankGoodput::Seconds RankGoodput::Report(const v1::RankProgress& progress, absl::Duration now) {
  is_training_ = progress.section() == "train";
  absl::Duration told;
  for (const auto& [category, seconds] : progress.goodput_seconds()) told += absl::Seconds(std::max(seconds, 0.0));
  Seconds booked;
  if (!category_.empty()) booked = Switch("", std::max(now - told, booked_));
  booked_ += told;
  for (const auto& [category, seconds] : progress.goodput_seconds()) {
    if (seconds > 0) booked[category] += seconds;
  }
  return booked;
}

RankGoodput::Seconds RankGoodput::Ended(bool succeeded, bool checks_gpu, absl::Duration now) {
  if (category_.empty()) category_ = is_training_ && !succeeded ? "lost_progress" : "other";
  return Switch(checks_gpu ? "health_check" : "other", now);
}

RankGoodput::Seconds RankGoodput::Gone(absl::Duration now) {
  if (category_.empty()) category_ = "other";
  return Switch("other", now);
}

}  // namespace trainyard::daemon
