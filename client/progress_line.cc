#include "client/progress_line.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/duration_text.h"

namespace trainyard::client {

void EtaEstimate::Add(int64_t step, absl::Duration now) {
  if (!has_first_ || step < last_step_) {
    has_first_ = true;
    first_step_ = step;
    first_time_ = now;
    last_step_ = step;
    last_time_ = now;
  }
  if (step == last_step_) return;
  last_step_ = step;
  last_time_ = now;
}

absl::Duration EtaEstimate::Remaining(int64_t total_steps) const {
  if (!has_first_ || last_step_ == first_step_ || last_time_ == first_time_) return absl::InfiniteDuration();
  const double seconds_a_step =
      absl::ToDoubleSeconds(last_time_ - first_time_) / static_cast<double>(last_step_ - first_step_);
  return absl::Seconds(seconds_a_step * static_cast<double>(std::max<int64_t>(0, total_steps - last_step_)));
}

std::string ShortNumber(double value) {
  const double size = std::abs(value);
  if (size >= 999.5e6) return absl::StrFormat("%.1fG", value / 1e9);
  if (size >= 999.5e3) return absl::StrFormat("%.1fM", value / 1e6);
  if (size >= 999.5) return absl::StrFormat("%.1fk", value / 1e3);
  return absl::StrFormat("%.0f", value);
}

std::string ProgressLine(const v1::JobProgress& progress, absl::Duration eta, int columns, const std::string& trials) {
  const int64_t total = std::max<int64_t>(progress.total_steps(), 0);
  const double done =
      total > 0 ? std::clamp(static_cast<double>(progress.step()) / static_cast<double>(total), 0.0, 1.0) : 0.0;
  std::string text = absl::StrFormat(" %3d%%  step %d/%d", static_cast<int>(done * 100), progress.step(), total);
  const auto value = [&](const char* name) -> const double* {
    const auto found = progress.values().find(name);
    return found == progress.values().end() ? nullptr : &found->second;
  };
  if (const double* loss = value("loss")) absl::StrAppendFormat(&text, "  loss %.4g", *loss);
  if (const double* critic = value("loss_d")) absl::StrAppendFormat(&text, "  loss_d %.4g", *critic);
  if (const double* rate = value("tokens_per_second")) absl::StrAppend(&text, "  ", ShortNumber(*rate), " tok/s");
  if (const double* rate = value("images_per_second")) absl::StrAppend(&text, "  ", ShortNumber(*rate), " img/s");
  if (progress.section() == "trials" && !trials.empty()) {
    absl::StrAppend(&text, "  ", trials);
  } else if (!progress.section().empty() && progress.section() != "train") {
    absl::StrAppend(&text, "  ", progress.section());
  }
  if (eta != absl::InfiniteDuration()) absl::StrAppend(&text, "  ETA ", RoughDuration(eta));

  const int bar_width = std::min(30, columns - static_cast<int>(text.size()) - 3);
  std::string line;
  if (bar_width >= 8) {
    const int filled = static_cast<int>(done * bar_width);
    line = absl::StrCat("[", std::string(filled, '='), filled < bar_width ? ">" : "",
                        std::string(std::max(0, bar_width - filled - 1), ' '), "]");
  }
  absl::StrAppend(&line, text);
  if (static_cast<int>(line.size()) >= columns) line.resize(std::max(columns - 1, 0));
  return line;
}

}  // namespace trainyard::client
