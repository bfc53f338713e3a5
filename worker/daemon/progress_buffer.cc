#include "worker/daemon/progress_buffer.h"

#include <utility>

#include "worker/daemon/proto_time.h"

namespace trainyard::daemon {
namespace {

constexpr int kMaxSamplesPerReport = 1000;

}  // namespace

void ProgressBuffer::Add(const v1::RankProgress& progress, absl::Time wall) {
  has_news_ = true;
  newest_.set_step(progress.step());
  if (progress.total_steps() > 0) newest_.set_total_steps(progress.total_steps());
  newest_.set_section(progress.section());
  SetProto(newest_.mutable_time(), wall);
  for (const auto& [name, value] : progress.moment()) (*newest_.mutable_values())[name] = value;
  if (progress.values().empty()) return;
  // A value that not every step has (evaluation loss, say) stays until the next one.
  for (const auto& [name, value] : progress.values()) (*newest_.mutable_values())[name] = value;
  Sample sample;
  sample.sample.set_step(progress.step());
  *sample.sample.mutable_values() = progress.values();
  SetProto(sample.sample.mutable_time(), wall);
  samples_.push_back(std::move(sample));
  if (samples_.size() <= limit_) return;
  std::deque<Sample> thinned;
  for (size_t i = 0; i < samples_.size(); ++i) {
    if (i >= limit_ / 2 || i % 2 == 0) thinned.push_back(std::move(samples_[i]));
  }
  samples_ = std::move(thinned);
}

std::optional<v1::ProgressReport> ProgressBuffer::Take(uint64_t last_heartbeat) {
  v1::ProgressReport report;
  for (Sample& sample : samples_) {
    if (sample.is_sent) continue;
    if (report.samples_size() == kMaxSamplesPerReport) break;
    sample.is_sent = true;
    sample.heartbeat = last_heartbeat;
    *report.add_samples() = sample.sample;
  }
  if (!has_news_ && report.samples_size() == 0) return std::nullopt;
  has_news_ = false;
  *report.mutable_ref() = ref_;
  *report.mutable_progress() = newest_;
  return report;
}

void ProgressBuffer::HeartbeatAcked(uint64_t sequence) {
  while (!samples_.empty() && samples_.front().is_sent && samples_.front().heartbeat < sequence) samples_.pop_front();
}

void ProgressBuffer::Rewind() {
  for (Sample& sample : samples_) sample.is_sent = false;
  has_news_ = newest_.has_time();
}

}  // namespace trainyard::daemon
