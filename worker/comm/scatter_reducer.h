// The first half of an all-reduce: every rank sends its pieces of each part to the part's owner (ShardMap), who adds
// them up in rank order and keeps the sum.
//
//   part = round(scale * (((piece_0 + piece_1) + piece_2) + ...))      or, to accumulate, part = part + that
//
// in f32: what the all-reduce of PlainReducer leaves in the same elements, bit by bit.
//
// Tensors travel in runs (CutIntoRuns). One that is a run of its own is sent from where it lies; short ones are packed.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/comm/bucket_reducer.h"
#include "worker/comm/exchange_state.h"
#include "worker/comm/piece_coder.h"

namespace trainyard::comm {

class ScatterReducer final : public BucketReducer {
 public:
  // `scatter` is borrowed.
  ScatterReducer(const std::vector<BucketTensor>& tensors, const ScatterOptions& scatter, int ranks, int rank);

  BufferNeeds Needs() const override;
  WireBytes BytesSent() const override;
  absl::Status Reduce(const ReduceContext& context) override;

 private:
  struct Run {
    std::vector<BucketTensor> tensors;
    bool is_packed = false;
    int64_t elements = 0;              // of all tensors
    std::vector<int64_t> of_rank;      // elements of each rank's parts
    std::vector<int64_t> packed_from;  // where they begin in the packed run
    Communicator::Blocks blocks;       // all but the memory
  };

  Run MakeRun(const BucketTensor* first, const BucketTensor* last) const;
  void Pack(const Run& run, float* packed, kernels::Stream& stream) const;
  absl::Status ReduceRun(Run& run, const ReduceContext& context);

  const ScatterOptions& scatter_;
  const int ranks_, rank_;
  std::vector<Run> runs_;
};

}  // namespace trainyard::comm
