#include "worker/comm/bucket_reducer.h"

#include <algorithm>

namespace trainyard::comm {
namespace {

template <typename T>
void Grow(int64_t size, std::vector<T>* buffer) {
  if (static_cast<int64_t>(buffer->size()) < size) buffer->resize(static_cast<size_t>(size));
}

}  // namespace

void BufferNeeds::Cover(const BufferNeeds& other) {
  sent = std::max(sent, other.sent);
  received = std::max(received, other.received);
  gathered = std::max(gathered, other.gathered);
  values = std::max(values, other.values);
  decoded = std::max(decoded, other.decoded);
  sum = std::max(sum, other.sum);
  transport = std::max(transport, other.transport);
}

void ExchangeBuffers::Reserve(const BufferNeeds& needs) {
  Grow(needs.sent, &sent);
  Grow(needs.received, &received);
  Grow(needs.gathered, &gathered);
  Grow(needs.values, &values);
  Grow(needs.decoded, &decoded);
  Grow(needs.sum, &sum);
}

int64_t ExchangeBuffers::bytes() const {
  return static_cast<int64_t>(sent.size() + received.size() + gathered.size() +
                              sizeof(float) * (values.size() + decoded.size() + sum.size()));
}

}  // namespace trainyard::comm
