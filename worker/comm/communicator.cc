#include "worker/comm/communicator.h"

#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace trainyard::comm {

absl::StatusOr<std::vector<std::string>> AllGatherStrings(Communicator& communicator, absl::string_view own) {
  const size_t ranks = static_cast<size_t>(communicator.size());
  const int64_t own_bytes = static_cast<int64_t>(own.size());
  std::vector<int64_t> lengths(ranks);
  TY_RETURN_IF_ERROR(
      communicator.AllGatherBytes(&own_bytes, std::vector<int64_t>(ranks, sizeof(int64_t)), lengths.data()));
  std::string all(static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0})), '\0');
  TY_RETURN_IF_ERROR(communicator.AllGatherBytes(own.data(), lengths, all.data()));
  std::vector<std::string> strings;
  size_t begin = 0;
  for (int64_t length : lengths) {
    strings.push_back(all.substr(begin, static_cast<size_t>(length)));
    begin += static_cast<size_t>(length);
  }
  return strings;
}

absl::StatusOr<std::string> BroadcastString(Communicator& communicator, absl::string_view own, int root) {
  int64_t length = static_cast<int64_t>(own.size());
  TY_RETURN_IF_ERROR(communicator.Broadcast(&length, sizeof(length), root));
  std::string text(static_cast<size_t>(length), '\0');
  if (communicator.rank() == root) text = std::string(own);
  TY_RETURN_IF_ERROR(communicator.Broadcast(text.data(), length, root));
  return text;
}

}  // namespace trainyard::comm
