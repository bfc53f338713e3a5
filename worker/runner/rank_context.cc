#include "worker/runner/rank_context.h"

#include <utility>

#include "base/status_macros.h"

namespace trainyard::runner {
namespace {

// How often the polls of a long section are passed on as a sign of life.
constexpr absl::Duration kAliveInterval = absl::Seconds(1);

}  // namespace

absl::string_view CategoryOf(absl::string_view section) {
  if (section == "train") return "productive";
  if (section == "prepare" || section == "connect") return "init";
  if (section == "data") return "data_wait";
  if (section == "checkpoint") return "checkpoint_save";
  if (section == "restore") return "checkpoint_restore";
  if (section == "recover") return "recovery";
  if (section == "health") return "health_check";
  if (section == "trials") return "trials_wait";
  return "other";
}

RankContext::RankContext(jobs::JobPlace place, StopFlag* stop, ReportFunction report, Clock* clock)
    : place_(std::move(place)), stop_(stop), report_(std::move(report)), clock_(clock) {
  MutexLock lock(&mutex_);
  booked_until_ = last_report_ = clock_->Monotonic();
}

void RankContext::Connected(comm::Communicator* data, comm::Communicator* control) {
  data_ = data;
  control_ = control;
}

void RankContext::Book() {
  const absl::Duration now = clock_->Monotonic();
  const absl::Duration passed = now - booked_until_;
  booked_until_ = now;
  absl::string_view category = CategoryOf(section_);
  if (category == "init" && follows_failure_) category = "recovery";
  if (category == "productive" && step_ < reached_step_) category = "lost_progress";
  goodput_[std::string(category)] += absl::ToDoubleSeconds(passed);
  if (section_ == "train") unit_seconds_ += passed;
}

v1::RunnerReport RankContext::MakeReport() {
  Book();
  last_report_ = booked_until_;
  v1::RunnerReport report;
  v1::RankProgress* progress = report.mutable_progress();
  progress->set_step(step_);
  progress->set_total_steps(total_steps_);
  progress->set_section(section_);
  for (const auto& [category, seconds] : std::exchange(goodput_, {})) {
    (*progress->mutable_goodput_seconds())[category] = seconds;
  }
  return report;
}

bool RankContext::ShouldStop() {
  v1::RunnerReport report;
  {
    MutexLock lock(&mutex_);
    // In "train" only a step is a sign of life: a loop that polls for ever must not hide a hang.
    if (section_ != "train" && clock_->Monotonic() - last_report_ >= kAliveInterval) report = MakeReport();
  }
  if (report.has_progress()) report_(report);
  return stop_->requested();
}

absl::StatusOr<bool> RankContext::AgreeToStop() {
  float wish = ShouldStop() ? 1.0f : 0.0f;
  TY_RETURN_IF_ERROR(control_->AllReduceSum(&wish, 1));
  return wish > 0;
}

void RankContext::EnterSection(absl::string_view section) {
  v1::RunnerReport report;
  {
    MutexLock lock(&mutex_);
    if (section == section_) return;
    Book();
    section_ = std::string(section);
    report = MakeReport();
  }
  report_(report);
}

std::string RankContext::section() {
  MutexLock lock(&mutex_);
  return section_;
}

void RankContext::SetHistory(bool follows_failure, int64_t reached_step) {
  MutexLock lock(&mutex_);
  follows_failure_ = follows_failure;
  reached_step_ = reached_step;
}

void RankContext::SetStep(int64_t step, int64_t total_steps) {
  MutexLock lock(&mutex_);
  step_ = step;
  total_steps_ = total_steps;
}

void RankContext::AddCacheUse(std::map<std::string, double>* values) {
  if (cache_ == nullptr) return;
  const cache::FileCacheCounts now = cache_->counts();
  const cache::FileCacheCounts told = std::exchange(cache_told_, now);
  const auto add = [&](const char* name, int64_t value) {
    if (value > 0) (*values)[name] = static_cast<double>(value);
  };
  add("cache_hit_files", now.hits - told.hits);
  add("cache_hit_bytes", now.hit_bytes - told.hit_bytes);
  add("cache_miss_files", now.misses - told.misses);
  add("cache_miss_bytes", now.miss_bytes - told.miss_bytes);
  add("cache_bypass_files", now.bypasses - told.bypasses);
  add("cache_bypass_bytes", now.bypass_bytes - told.bypass_bytes);
}

void RankContext::ReportUnit(const jobs::UnitResult& unit, const std::map<std::string, double>& extra) {
  v1::RunnerReport report;
  {
    MutexLock lock(&mutex_);
    Book();  // by the step before it
    step_ = unit.step;
    total_steps_ = unit.total_steps;
    report = MakeReport();
    auto* values = report.mutable_progress()->mutable_values();
    (*values)["step_seconds"] = absl::ToDoubleSeconds(std::exchange(unit_seconds_, absl::ZeroDuration()));
    for (const auto& [name, value] : unit.metrics) (*values)[name] = value;
    for (const auto& [name, value] : extra) (*values)[name] = value;
    std::map<std::string, double> cache_use;
    AddCacheUse(&cache_use);
    for (const auto& [name, value] : cache_use) (*values)[name] = value;
  }
  report_(report);
}

void RankContext::ReportMoment(const std::map<std::string, double>& values) {
  v1::RunnerReport report;
  {
    MutexLock lock(&mutex_);
    report = MakeReport();
  }
  for (const auto& [name, value] : values) (*report.mutable_progress()->mutable_moment())[name] = value;
  report_(report);
}

}  // namespace trainyard::runner
