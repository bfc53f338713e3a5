#include "worker/daemon/lease_view.h"

#include <algorithm>

namespace trainyard::daemon {

void LeaseView::Registered(absl::Duration lease_ttl, absl::Duration self_fence_after, absl::Duration register_sent) {
  lease_ttl_ = lease_ttl;
  self_fence_after_ = self_fence_after;
  contact_ = std::max(contact_, register_sent);
  in_flight_.clear();
}

void LeaseView::HeartbeatSent(uint64_t sequence, absl::Duration now) {
  in_flight_[sequence] = now;
}

void LeaseView::HeartbeatAcked(uint64_t sequence) {
  const auto acked = in_flight_.find(sequence);
  if (acked == in_flight_.end()) return;
  contact_ = std::max(contact_, acked->second);
  in_flight_.erase(in_flight_.begin(), std::next(acked));
}

}  // namespace trainyard::daemon
