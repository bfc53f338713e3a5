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
// Gradients are f32 or bf16, all the same. If the tensors of a bucket lie back to back in memory in forward order, an
// uncoded bucket is exchanged in place, else through a staging copy: so allocate gradients in one run, layer after
// layer. Codecs see f32. How the bytes travel: bucket_reducer.h.
//
// After the last bucket of a step the same thread does what has a schedule: levels are fitted anew, bits planned, code
// tables made (adaptation.h), gradients compared between ranks. It takes effect with the next step, on all ranks.
//
// Gradients of a device (ExchangeOptions::compute): LayerReady notes where the compute stream is, and the bucket's work
// waits for that on a stream of the exchange's own, beside whatever the compute stream does next. Codecs and sums run
// on that stream; the host's thread follows it where bytes go to other ranks. Wait returns when it has ended, so that
// work enqueued later, on any stream, sees the sums.
//
// With one rank there is no thread and nothing is encoded; only `scale` is applied. A steady step allocates nothing
// here (the gloo transport allocates small records of its own). One thread calls everything below, except where noted.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/tensor.h"
#include "worker/comm/bucket_layout.h"
#include "worker/comm/communicator.h"
#include "worker/comm/exchange_state.h"

namespace trainyard::comm {

// Since Create, except where noted.
struct ExchangeStats {
  int64_t steps = 0;
  int64_t bytes_sent = 0;    // to other ranks, after the codec: the sum of the next three
  int64_t phase1_bytes = 0;  // pieces to their owners; all there is of all-gather
  int64_t phase2_bytes = 0;  // the owners' sums
  // Of them, what each codec made; "none": not coded; "power_sgd": all that such an exchange sends.
  std::map<std::string, int64_t> phase1_by_codec, phase2_by_codec;
  int64_t control_bytes = 0;  // what has a schedule: levels, bits, tables, hashes
  int64_t bytes_received = 0;
  int64_t gradient_bytes = 0;   // exchanged, before the codec: bytes_sent of identity is 2 (R-1)/R of it; of a scatter,
                                // which is half of an all-reduce, half of them
  double exchange_seconds = 0;  // the thread's time on buckets
  double exposed_seconds = 0;   // of it, what Wait had to wait
  double codec_seconds = 0;     // of exchange_seconds, encoding and decoding

  // The newest measurement, of this rank: by layer type, |decoded - value|^2 / |value|^2 over what it encoded in phase
  // 1 of one step, taken every kErrorInterval steps.
  std::map<std::string, double> squared_error;
  // Of the coded tensors as they are now, by layer type: mean bits of a value, without the buckets' metadata.
  std::map<std::string, double> bits;
  int64_t plan_epoch = 0;  // how often levels, bits or code tables have changed since step 0
};

inline constexpr int64_t kErrorInterval = 16;

class GradientExchange {
 public:
  virtual ~GradientExchange() = default;

  // `layers` in forward order; the views stay valid as long as the exchange. `communicator` and `state` are borrowed;
  // the communicator belongs to the exchange as long as it lives. Without a state, it has one of its own. Collective:
  // FailedPrecondition names a rank whose layout, settings or codec version differ from rank 0's. InvalidArgument as
  // ExchangeState::Create, and for contributions of a codec that has none (power_sgd). ResourceExhausted without
  // memory. options.compute is borrowed too, and must be the one that `state` was made with; with it, call on a thread
  // whose current device is that of the stream.
  static absl::StatusOr<std::unique_ptr<GradientExchange>> Create(const ExchangeOptions& options,
                                                                  std::vector<GradientLayer> layers,
                                                                  Communicator* communicator,
                                                                  ExchangeState* state = nullptr);

  // `scale` is applied to the sum: 1/R for the mean over ranks, or 1/(sum of the ranks' weights) for gradients that are
  // sums over tokens. Above 0, equal on all ranks. Steps go up, or stay where they are. `accumulate`, for
  // ScatterOptions::accumulates: what is made is added to the parts.
  virtual void Begin(int64_t step, float scale, bool accumulate = false) = 0;

  // Each layer once a step, in any order; from any thread, one at a time. With options.compute: when the layer's
  // backward has been enqueued there.
  virtual void LayerReady(int layer) = 0;

  // Returns when the exchange is done with the layer's gradients, and with what was enqueued to read them: their memory
  // may then be written again, if they are not wanted any more (ScatterOptions). The layer and those that travel before
  // it are ready, or an error has come up, which Wait then tells. From the thread that makes layers ready.
  virtual void WaitForLayer(int layer) = 0;

  // After all layers are ready: returns when all buckets are done. On an error the gradients are undefined and so is
  // every later step; the attempt is over. DataLoss: the ranks' gradients differ (hash check).
  virtual absl::Status Wait() = 0;

  // With options.keeps_contribution, after Wait: what this rank has put into the unscaled sum, f32, one view a tensor
  // in forward order: what decodes of its pieces; its exact piece where it owns the sum (sra); of a ring, what the sum
  // grew by at this rank. Over the ranks they add up to the sum before its own coding in phase 2. One rank: the
  // gradients themselves. Empty without the option.
  virtual const std::vector<kernels::TensorView>& contributions() const = 0;

  virtual const std::vector<Bucket>& buckets() const = 0;

  // The parts of a checkpoint; see ExchangeState. Call between Wait and Begin.
  virtual ExchangeState& state() = 0;
  const std::vector<NamedState>& local_state() { return state().local_state(); }
  const std::vector<NamedState>& replicated_state() { return state().replicated_state(); }
  std::string StateText() { return state().Text(); }
  absl::Status RestoreState(const std::string& text) { return state().RestoreText(text); }

  // Memory the exchange holds, of the device if the gradients are, without its state, for the memory plan. Transport
  // memory included as far as it is ours.
  virtual int64_t workspace_bytes() const = 0;

  // Call between Wait and Begin.
  virtual ExchangeStats stats() const = 0;
};

}  // namespace trainyard::comm
