// What an exchange carries from step to step, and so what a checkpoint must hold: error feedback, PowerSGD's factors,
// the window of L-GreCo, and as text the levels, bits and code tables in force.
//
// It is made before the ranks connect, so that a checkpoint can be restored into it:
//
//   state = ExchangeState::Create(options, layers, rank, ranks);
//   for (const NamedState& s : state->local_state()) reader.ReadLocalTensor(s.name, s.tensor);
//   for (const NamedState& s : state->replicated_state()) reader.ReadTensor(s.name, s.tensor);
//   state->RestoreText(text);
//   exchange = GradientExchange::Create(options, layers, communicator, state.get());
//
// With one rank there is nothing to carry.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "proto/spec/communication_options.h"
#include "worker/comm/codec.h"
#include "worker/comm/shard_map.h"

namespace trainyard::comm {

struct GradientTensor {
  kernels::TensorView gradient;  // f32 or bf16, in the parameter's shape: PowerSGD sees the first axis by the others
  int dims = 2;                  // of the parameter; 1 for norm weights and biases, which are never coded
  std::string name;              // of the parameter, "layers.0.attention.qkv.weight": tells its layer type
};

struct GradientLayer {
  std::vector<GradientTensor> tensors;
};

// One setting of a codec.
struct CodecSetting {
  spec::CodecOptions codec;
  std::vector<float> levels;  // of LevelsCodec: the table in force; else empty
  std::string code_table;     // Huffman code of the level indices; empty: fixed length
};
using CodecFactory = std::function<std::unique_ptr<Codec>(const CodecSetting&)>;

// An exchange that stops half way: of each tensor a rank gets its part of the mean only. Nothing is coded.
struct ScatterOptions {
  ShardMap map{{}, 1};                     // tensors in forward order, as many ranks as the communicator has
  std::vector<kernels::TensorView> parts;  // by tensor, where this rank's part goes: f32; no view where it has none
  // Layers travel one by one, so that their gradients can lie in memory that layers take turns to use.
  bool by_layer = false;
  bool accumulates = false;  // Begin may ask for sums to be added to what `parts` hold
};

// With `compute`, gradients are memory of that stream's device, written by what is enqueued on it; the exchange works
// on streams of the same device, and its own memory is of that kind too. Without, gradients are in host memory.
struct ExchangeOptions {
  spec::CommunicationOptions communication;
  uint64_t seed = 0;                // of the rounding noise: the job's
  bool keeps_contribution = false;  // see GradientExchange::contributions
  CodecFactory make_codec;          // for tests; unset: MakeCodec (make_codec.h)
  kernels::Stream* compute = nullptr;
  // The gradients' elements outside this rank's parts are undefined after the exchange, and inside too if `parts` are
  // elsewhere. Of no effect with one rank.
  std::optional<ScatterOptions> scatter;

  kernels::Device device() const { return compute != nullptr ? compute->device() : kernels::Device::kCpu; }
};

struct NamedState {
  std::string name;
  // Zero until the first step. Read and written by the host only between two steps.
  kernels::TensorView tensor;
};

class ExchangeState {
 public:
  virtual ~ExchangeState() = default;

  // `layers` in forward order, as GradientExchange::Create gets them; only names, dims, shapes and dtypes matter here.
  // InvalidArgument if an own layer type matches no tensor or two match one, ResourceExhausted without memory.
  static absl::StatusOr<std::unique_ptr<ExchangeState>> Create(const ExchangeOptions& options,
                                                               const std::vector<GradientLayer>& layers, int rank,
                                                               int ranks);

  // This rank's own. Names begin with "exchange/".
  virtual const std::vector<NamedState>& local_state() const = 0;
  // Equal on all ranks.
  virtual const std::vector<NamedState>& replicated_state() const = 0;
  // Equal on all ranks. Call between two steps.
  virtual std::string Text() const = 0;
  // Before the first Begin. DataLoss for a text that is none, FailedPrecondition for one of other settings.
  virtual absl::Status RestoreText(const std::string& text) = 0;

  // Back to what Create made.
  virtual void Reset() = 0;

  // Of local_state and replicated_state.
  virtual int64_t bytes() const = 0;
};

}  // namespace trainyard::comm
