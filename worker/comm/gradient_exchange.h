// Averages gradients over the ranks while backward goes on.
//
//   exchange->Begin(step, scale);
//   for layer = last .. first:  backward(layer);  exchange->LayerReady(layer);
//   status = exchange->Wait();   // now every gradient is scale * sum over ranks, bit-identical on all ranks
//
// Layers are grouped into buckets (bucket_layout.h). A bucket is exchanged, on a thread of the exchange's own, when all
// its layers are ready and all buckets before it have been exchanged, so the order is the same on all ranks in whatever
// order layers become ready. The caller must not touch a layer's gradients between LayerReady and Wait.
//
// Gradients are f32 or bf16, all the same. If the tensors of a bucket lie back to back in memory in forward order, the
// bucket is exchanged in place, else through a staging copy: so allocate gradients in one run, layer after layer.
// Codecs see f32.
//
// With one rank there is no thread and nothing is encoded; only `scale` is applied. A steady step allocates nothing
// here (the gloo transport allocates small records of its own). One thread calls everything below, except where noted.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/tensor.h"
#include "worker/comm/bucket_layout.h"
#include "worker/comm/codec.h"
#include "worker/comm/communicator.h"

namespace trainyard::comm {

struct GradientTensor {
  kernels::TensorView gradient;
  int dims = 2;  // of the parameter; 1 for norm weights and biases
};

struct GradientLayer {
  std::vector<GradientTensor> tensors;
};

struct ExchangeOptions {
  int64_t bucket_bytes = 25 << 20;  // 1 .. ; of gradients, before the codec
  CodecPolicy codec_policy;
};

// Since Create, except where noted.
struct ExchangeStats {
  int64_t steps = 0;
  int64_t bytes_sent = 0;  // to other ranks, after the codec
  int64_t bytes_received = 0;
  int64_t gradient_bytes = 0;   // exchanged, before the codec: bytes_sent of identity is 2 (R-1)/R of it
  double exchange_seconds = 0;  // the thread's time on buckets
  double exposed_seconds = 0;   // of it, what Wait had to wait
};

class GradientExchange {
 public:
  virtual ~GradientExchange() = default;

  // `layers` in forward order; the views stay valid as long as the exchange. `communicator` is borrowed and belongs to
  // the exchange as long as it lives. Collective: compares the layouts of the ranks (FailedPrecondition if they
  // differ).
  static absl::StatusOr<std::unique_ptr<GradientExchange>> Create(const ExchangeOptions& options,
                                                                  std::vector<GradientLayer> layers,
                                                                  Communicator* communicator,
                                                                  std::unique_ptr<Codec> codec = MakeIdentityCodec());

  // `scale` is applied to the sum: 1/R for the mean over ranks, or 1/(sum of the ranks' weights) for gradients that are
  // sums over tokens. Must be equal on all ranks.
  virtual void Begin(int64_t step, float scale) = 0;

  // Each layer once a step, in any order; from any thread, one at a time.
  virtual void LayerReady(int layer) = 0;

  // After all layers are ready: returns when all buckets are done. On an error the gradients are undefined and so is
  // every later step; the attempt is over.
  virtual absl::Status Wait() = 0;

  virtual const std::vector<Bucket>& buckets() const = 0;

  // Host memory the exchange holds, for the memory plan. Transport memory included as far as it is ours.
  virtual int64_t workspace_bytes() const = 0;

  // Call between Wait and Begin.
  virtual ExchangeStats stats() const = 0;
};

}  // namespace trainyard::comm
