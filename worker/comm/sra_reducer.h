// Scatter-reduce-allgather (quantized-comm.md 2.4). Each rank owns the part PartOf(elements, ranks, rank) of the
// bucket.
//
// Phase 1: each rank codes its pieces of the others' parts and sends them to the owners; the owner adds them to its own
// exact piece, in rank order. Phase 2: the owner scales and codes the sum, sends it to all and, like all, keeps what
// decodes from those bytes.
#pragma once

#include <vector>

#include "worker/comm/bucket_reducer.h"
#include "worker/comm/piece_coder.h"

namespace trainyard::comm {

class SraReducer final : public BucketReducer {
 public:
  SraReducer(const std::vector<BucketTensor>& tensors, PieceCoder* coder, int ranks, int rank);

  BufferNeeds Needs() const override;
  WireBytes BytesSent() const override;
  absl::Status Reduce(const ReduceContext& context) override;

 private:
  int64_t PieceBytes(int owner) const;
  int64_t SumBytes(int owner) const;
  bool HasFixedPieces() const;
  absl::Status SendPieces(const ReduceContext& context);

  PieceCoder* const coder_;
  const int ranks_, rank_;
  const std::vector<std::vector<Slice>> parts_;  // by owner
  int64_t longest_slice_ = 0;
  Communicator::Blocks blocks_;
  std::vector<int64_t> sum_bytes_;  // by owner
  std::vector<int64_t> lengths_;    // entropy coding: by sender, then by owner
  std::vector<int64_t> length_bytes_;
  std::vector<const char*> cursors_;  // by sender
};

}  // namespace trainyard::comm
