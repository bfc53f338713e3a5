#include "worker/comm/rank_agreement.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace trainyard::comm {

absl::Status AgreeOnExchange(Communicator& communicator, const ExchangeIdentity& own) {
  const auto ranks = static_cast<size_t>(communicator.size());
  std::vector<ExchangeIdentity> all(ranks);
  TY_RETURN_IF_ERROR(
      communicator.AllGatherBytes(&own, std::vector<int64_t>(ranks, sizeof(ExchangeIdentity)), all.data()));
  for (size_t rank = 1; rank < ranks; ++rank) {
    const auto differ = [&](const char* what, uint64_t theirs, uint64_t first) {
      return absl::FailedPreconditionError(
          absl::StrCat("rank ", rank, " ", what, " from rank 0: ", absl::Hex(theirs), " vs ", absl::Hex(first)));
    };
    if (all[rank].codec_version != all[0].codec_version) {
      return differ("has codecs of a different wire version", all[rank].codec_version, all[0].codec_version);
    }
    if (all[rank].layout != all[0].layout) {
      return differ("lays its gradients out differently", all[rank].layout, all[0].layout);
    }
    if (all[rank].settings != all[0].settings) {
      return differ("has other settings of the exchange (communication, seed or parameter names)", all[rank].settings,
                    all[0].settings);
    }
  }
  return absl::OkStatus();
}

absl::Status AgreeOnHash(Communicator& communicator, int64_t step, uint64_t own) {
  const auto ranks = static_cast<size_t>(communicator.size());
  std::vector<uint64_t> all(ranks);
  TY_RETURN_IF_ERROR(communicator.AllGatherBytes(&own, std::vector<int64_t>(ranks, sizeof(own)), all.data()));
  std::vector<size_t> different;
  for (size_t rank = 1; rank < ranks; ++rank) {
    if (all[rank] != all[0]) different.push_back(rank);
  }
  if (different.empty()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("after step ", step, " rank ", absl::StrJoin(different, ", rank "),
                                          different.size() == 1 ? " holds" : " hold",
                                          " other gradients than rank 0 (hash check)"));
}

}  // namespace trainyard::comm
