// Every rank codes its whole bucket once and sends it to all; all decode the pieces, their own too, and add them up in
// rank order (quantized-comm.md 2.4). The sum is not coded again, so errors of the ranks average out; bytes grow with
// the number of ranks.
#pragma once

#include <vector>

#include "worker/comm/bucket_reducer.h"
#include "worker/comm/piece_coder.h"

namespace trainyard::comm {

class AllGatherReducer final : public BucketReducer {
 public:
  AllGatherReducer(const std::vector<BucketTensor>& tensors, PieceCoder* coder, int ranks, int rank);

  BufferNeeds Needs() const override;
  WireBytes BytesSent() const override;
  absl::Status Reduce(const ReduceContext& context) override;

 private:
  int64_t PieceBytes() const;

  PieceCoder* const coder_;
  const int ranks_, rank_;
  const std::vector<Slice> slices_;  // whole tensors
  int64_t longest_slice_ = 0;
  std::vector<int64_t> piece_bytes_;  // by rank
  const std::vector<int64_t> length_bytes_;
  std::vector<const char*> cursors_;  // by rank
};

}  // namespace trainyard::comm
