// PowerSGD (Vogels et al., arXiv:1905.13727; quantized-comm.md 2.9): a matrix M (n, m), gradient plus feedback, travels
// as two thin factors.
//
//   P = M Q;  P <- sum over ranks;  P <- orthonormal columns;  Q = M' P;  Q <- scale * sum over ranks;  gradient = P Q'
//
// Q (m, r) is that of the last step, made orthonormal (warm start); the first one is random, from the seed. The
// feedback becomes M - P Q' / (scale * ranks): what the ranks' mean lacks. Tensors that are not factorised, and before
// start_step all, travel as f32. After the sums all ranks compute the same from the same bits. If a sum is not finite,
// the gradient becomes NaN on all ranks, and feedback and Q stay as they were.
//
// Bytes: an all-reduce of r (n + m) floats, phase 1 and 2 being its halves.
//
// The products are the host's: on a device it waits for the gradients and reads them over the bus. Right, not fast.
#pragma once

#include <vector>

#include "worker/comm/bucket_reducer.h"
#include "worker/comm/piece_coder.h"
#include "worker/comm/plain_reducer.h"

namespace trainyard::comm {

class PowerSgdReducer final : public BucketReducer {
 public:
  PowerSgdReducer(const std::vector<BucketTensor>& tensors, ExchangeParts* parts, PieceCoder* coder);

  BufferNeeds Needs() const override;
  WireBytes BytesSent() const override;  // from start_step on
  absl::Status Reduce(const ReduceContext& context) override;

 private:
  struct Matrix {
    BucketTensor tensor;
    int64_t rows = 0, cols = 0;
    int64_t p = 0, q = 0;  // where P' (r, rows) and Q' (r, cols) are in their buffers
    bool is_finite = true;
  };

  // gradient + feedback, in `buffer`.
  const float* Value(const Matrix& matrix, float* buffer) const;
  void Project(const ReduceContext& context);      // P
  void ProjectBack(const ReduceContext& context);  // Q
  void Rebuild(const ReduceContext& context);      // gradient, feedback, next Q

  ExchangeParts& parts_;
  PieceCoder* const coder_;
  const spec::PowerSgdCodec options_;
  std::vector<Matrix> matrices_;
  std::vector<BucketTensor> others_;
  int64_t p_elements_ = 0, q_elements_ = 0, other_elements_ = 0, longest_ = 0, widest_ = 0;
  std::vector<float> row_;
  PlainReducer plain_;
};

}  // namespace trainyard::comm
