// Steps of one task that the coordinator may not have yet. Progress is not acknowledged by itself, but a stream is
// ordered: once a heartbeat sent later is acknowledged, what went before has arrived. So samples are kept until then
// and go again on a new session. Pure; one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "absl/time/time.h"
#include "proto/v1/worker.pb.h"

namespace trainyard::daemon {

class ProgressBuffer {
 public:
  explicit ProgressBuffer(v1::AttemptRef ref, size_t limit = 20000) : ref_(std::move(ref)), limit_(limit) {}

  // What rank 0 reported. Beyond the limit, every second sample of the older half goes: a curve keeps its shape.
  void Add(const v1::RankProgress& progress, absl::Time wall);

  // What there is to send, if anything; at most 1000 samples at once. `last_heartbeat` is the newest sequence sent.
  std::optional<v1::ProgressReport> Take(uint64_t last_heartbeat);
  void HeartbeatAcked(uint64_t sequence);
  void Rewind();

  size_t kept() const { return samples_.size(); }

 private:
  struct Sample {
    v1::MetricSample sample;
    bool is_sent = false;
    uint64_t heartbeat = 0;  // newest one sent before it
  };

  const v1::AttemptRef ref_;
  const size_t limit_;
  std::deque<Sample> samples_;
  v1::JobProgress newest_;
  bool has_news_ = false;
};

}  // namespace trainyard::daemon
