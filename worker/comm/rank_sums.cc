#include "worker/comm/rank_sums.h"

#include <algorithm>

#include "base/check.h"
#include "base/status_macros.h"

namespace trainyard::comm {

RankSums::RankSums(Communicator* communicator, int most)
    : communicator_(communicator),
      bytes_(static_cast<size_t>(communicator->size())),
      gathered_(static_cast<size_t>(communicator->size() * most)) {}

absl::Status RankSums::Sum(double* values, int count) {
  TY_CHECK_LE(static_cast<size_t>(communicator_->size() * count), gathered_.size());
  std::fill(bytes_.begin(), bytes_.end(), static_cast<int64_t>(sizeof(double)) * count);
  TY_RETURN_IF_ERROR(communicator_->AllGatherBytes(values, bytes_, gathered_.data()));
  for (int i = 0; i < count; ++i) {
    values[i] = 0;
    for (int rank = 0; rank < communicator_->size(); ++rank) {
      values[i] += gathered_[static_cast<size_t>(rank * count + i)];
    }
  }
  return absl::OkStatus();
}

}  // namespace trainyard::comm
