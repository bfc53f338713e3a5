// How the worker sees its lease (CP-23, CP-25): time counts from the moment the last acknowledged heartbeat was *sent*,
// so the worker's view ends before the coordinator's. Pure; `now` is monotonic time.
#pragma once

#include <cstdint>
#include <map>

#include "absl/time/time.h"

namespace trainyard::daemon {

class LeaseView {
 public:
  explicit LeaseView(absl::Duration now) : contact_(now) {}

  // From Registered; `register_sent` is when the Register message went out. Heartbeats of older sessions are forgotten.
  void Registered(absl::Duration lease_ttl, absl::Duration self_fence_after, absl::Duration register_sent);
  void HeartbeatSent(uint64_t sequence, absl::Duration now);
  // Acknowledges this heartbeat and all before it; unknown numbers change nothing.
  void HeartbeatAcked(uint64_t sequence);

  bool Holds(absl::Duration now) const { return now - contact_ < lease_ttl_; }
  // The coordinator has been out of reach for so long that tasks must end.
  bool MustFence(absl::Duration now) const { return now - contact_ >= self_fence_after_; }
  // Send time of the newest thing known to have arrived.
  absl::Duration contact() const { return contact_; }

 private:
  absl::Duration contact_;
  absl::Duration lease_ttl_ = absl::Seconds(15);
  absl::Duration self_fence_after_ = absl::Seconds(600);
  std::map<uint64_t, absl::Duration> in_flight_;
};

}  // namespace trainyard::daemon
