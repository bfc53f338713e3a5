// All-reduce of gradients as they are.
#pragma once

#include <vector>

#include "worker/comm/bucket_reducer.h"
#include "worker/comm/piece_coder.h"

namespace trainyard::comm {

class PlainReducer final : public BucketReducer {
 public:
  // In place if the tensors lie back to back, else through the buffer `gathered`. `coder` keeps the contributions.
  PlainReducer(std::vector<BucketTensor> tensors, PieceCoder* coder, int ranks, int rank);

  BufferNeeds Needs() const override;
  WireBytes BytesSent() const override;
  absl::Status Reduce(const ReduceContext& context) override;

 private:
  const std::vector<BucketTensor> tensors_;
  PieceCoder* const coder_;
  const int ranks_, rank_;
  int64_t elements_ = 0;
  kernels::DType dtype_ = kernels::DType::kF32;
  kernels::TensorView run_;  // all of it, if it is one run of memory
};

}  // namespace trainyard::comm
