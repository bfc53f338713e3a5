// How the gradients of one bucket are summed over the ranks. Each way is a class behind this interface:
//
//   plain      f32 or bf16, in place, by the communicator's all-reduce: a bucket in which nothing is coded
//   sra        scatter-reduce-allgather: every rank sends its coded piece of each part to the part's owner, who adds
//              them up, codes the sum and sends it to all
//   allgather  every rank sends its coded bucket to all, and all add them up
//   ring       coded partial sums go round, coded anew at each rank, then the sums go to all
//   power_sgd  matrices as two thin factors, each summed by all-reduce
//   scatter    f32, uncoded, every rank's part of the sum to that rank only (ScatterOptions)
//
// In all but the last every rank ends up with what decodes from the same bytes by the same operations in the same order
// (pieces in rank order), so all ranks hold equal bits, whatever the codec loses. Nothing is dropped silently: a value
// that is not finite makes its bucket NaN on all ranks.
//
// Wire: the bucket's tensors one after the other are cut into slices, a slice starts at a multiple of 8 bytes, tensors
// without a codec travel as f32. How many bytes is a pure function of layout and codecs, so no sizes travel, but with
// entropy coding, where each message is preceded by its length.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/core/stream.h"
#include "worker/comm/communicator.h"
#include "worker/comm/exchange_memory.h"
#include "worker/comm/partition.h"

namespace trainyard::comm {

// What one rank sends. With entropy coding, of plans: the most it can be.
struct WireBytes {
  int64_t phase1 = 0;
  int64_t phase2 = 0;
};

// An all-reduce by PartOf: phase 1 the others' parts, phase 2 the own sum to all the others.
inline WireBytes AllReduceBytes(int64_t count, int64_t element_bytes, int ranks, int rank) {
  const int64_t own = PartOf(count, ranks, rank).size();
  return {(count - own) * element_bytes, own * (ranks - 1) * element_bytes};
}

// Memory that the buckets of an exchange take turns to use.
struct BufferNeeds {
  int64_t sent = 0, received = 0, gathered = 0;  // bytes
  int64_t values = 0, decoded = 0, sum = 0;      // floats
  int64_t transport = 0;                         // bytes of the largest all-reduce
  void Cover(const BufferNeeds& other);
};

class ExchangeBuffers {
 public:
  explicit ExchangeBuffers(kernels::MemoryKind kind)
      : sent(kind), received(kind), gathered(kind), values(kind), decoded(kind), sum(kind) {}

  // Grows what is smaller. Nothing may be at work on the buffers.
  absl::Status Reserve(const BufferNeeds& needs);
  int64_t bytes() const;

  ExchangeMemory sent, received, gathered;
  ExchangeMemory values, decoded, sum;  // of floats
};

struct ReduceContext {
  int64_t step = 0;
  float scale = 1.0f;
  bool accumulate = false;  // scatter only: add to what is there
  Communicator* communicator = nullptr;
  ExchangeBuffers* buffers = nullptr;
  kernels::Stream* stream = nullptr;
  WireBytes* sent = nullptr;  // added to
};

class BucketReducer {
 public:
  virtual ~BucketReducer() = default;

  // Both for the codecs as they are now.
  virtual BufferNeeds Needs() const = 0;
  virtual WireBytes BytesSent() const = 0;

  // Every gradient becomes what all ranks decode as scale * sum over ranks. The buffers cover Needs(). Works on the
  // stream, which may still be at it when this returns.
  virtual absl::Status Reduce(const ReduceContext& context) = 0;
};

// Adds to `*phase` what the communicator sends while this lives.
class SentMeter {
 public:
  SentMeter(const Communicator& communicator, int64_t* phase)
      : communicator_(communicator), phase_(phase), before_(communicator.traffic().bytes_sent) {}
  ~SentMeter() { *phase_ += communicator_.traffic().bytes_sent - before_; }
  SentMeter(const SentMeter&) = delete;
  SentMeter& operator=(const SentMeter&) = delete;

 private:
  const Communicator& communicator_;
  int64_t* const phase_;
  const int64_t before_;
};

}  // namespace trainyard::comm
