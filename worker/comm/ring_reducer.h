// Partial sums go round the ring (quantized-comm.md 2.4): part j starts at rank j + 1, each rank decodes what arrives,
// adds its own piece and codes the result for the next; at rank j the part is complete, is scaled, coded once more and
// sent to all. The coding errors of all hops add up, so it is meant for few ranks.
#pragma once

#include <vector>

#include "worker/comm/bucket_reducer.h"
#include "worker/comm/piece_coder.h"

namespace trainyard::comm {

class RingReducer final : public BucketReducer {
 public:
  RingReducer(const std::vector<BucketTensor>& tensors, PieceCoder* coder, int ranks, int rank);

  BufferNeeds Needs() const override;
  WireBytes BytesSent() const override;
  absl::Status Reduce(const ReduceContext& context) override;

 private:
  int64_t PieceBytes(int part) const;
  int64_t SumBytes(int part) const;
  bool HasFixedPieces() const;
  // `bytes` of sent go to the next rank; received is overwritten by what the previous one sends of `part`.
  absl::Status Pass(const ReduceContext& context, int64_t bytes, int part);

  PieceCoder* const coder_;
  const int ranks_, rank_;
  const std::vector<std::vector<Slice>> parts_;  // by owner
  int64_t longest_slice_ = 0;
  Communicator::Blocks blocks_;
  std::vector<int64_t> sum_bytes_;  // by owner
  const std::vector<int64_t> length_bytes_;
};

}  // namespace trainyard::comm
