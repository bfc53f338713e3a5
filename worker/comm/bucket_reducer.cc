#include "worker/comm/bucket_reducer.h"

#include <algorithm>

#include "base/status_macros.h"

namespace trainyard::comm {

void BufferNeeds::Cover(const BufferNeeds& other) {
  sent = std::max(sent, other.sent);
  received = std::max(received, other.received);
  gathered = std::max(gathered, other.gathered);
  values = std::max(values, other.values);
  decoded = std::max(decoded, other.decoded);
  sum = std::max(sum, other.sum);
  transport = std::max(transport, other.transport);
}

absl::Status ExchangeBuffers::Reserve(const BufferNeeds& needs) {
  constexpr int64_t kFloat = sizeof(float);
  TY_RETURN_IF_ERROR(sent.Grow(needs.sent));
  TY_RETURN_IF_ERROR(received.Grow(needs.received));
  TY_RETURN_IF_ERROR(gathered.Grow(needs.gathered));
  TY_RETURN_IF_ERROR(values.Grow(kFloat * needs.values));
  TY_RETURN_IF_ERROR(decoded.Grow(kFloat * needs.decoded));
  return sum.Grow(kFloat * needs.sum);
}

int64_t ExchangeBuffers::bytes() const {
  return sent.bytes() + received.bytes() + gathered.bytes() + values.bytes() + decoded.bytes() + sum.bytes();
}

}  // namespace trainyard::comm
