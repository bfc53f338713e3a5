// The state of one rank's training and the step that moves it on. No files, no protocol: jobs/ puts those around it.
//
// A step: for each micro-batch, the loader's next rows, forward and backward, gradients added up in f32; with the last
// one, layers go to the exchange as they become final. Then the true global norm, the NaN policy, clipping, the
// optimizer. The loss is the mean over all tokens of the step, over all ranks.
//
// With training.shard and several ranks, a rank keeps the optimizer's state, the masters of bf16 weights, and of grads
// also the gradients, for its part of each tensor (comm/shard_map.h). It gets the mean of that part, updates it, and
// the ranks send each other the weights. With training.offload, moments, masters and inputs of blocks live in pinned
// memory of the host. docs/training-memory.md has the bytes and what stays equal.
//
// All memory is taken in Create; a step allocates nothing. On a CUDA device every call here returns with the device
// idle, so that callers on the host may read and write what the trainer shows them. Everything a step does is a
// function of the state, the spec and the data: the same bits for any number of threads, memory options, and after a
// save and restore.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/arena.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/stream.h"
#include "proto/spec/training_options.h"
#include "worker/comm/communicator.h"
#include "worker/comm/gradient_exchange.h"
#include "worker/comm/part_gather.h"
#include "worker/comm/rank_sums.h"
#include "worker/comm/shard_map.h"
#include "worker/data/batch_source.h"
#include "worker/linear/mask_counting_scheme.h"
#include "worker/model/config.h"
#include "worker/model/network.h"
#include "worker/model/parameters.h"
#include "worker/optim/optimizer.h"
#include "worker/train/coded_weights.h"
#include "worker/train/gradient_norm.h"
#include "worker/train/z_score.h"

namespace trainyard::train {

struct TrainerOptions {
  model::ModelConfig config;
  kernels::DType dtype = kernels::DType::kF32;
  spec::TrainingOptions training;
  int64_t sequence_length = 0;
  int threads = 1;
  kernels::Device device = kernels::Device::kCpu;
  uint64_t seed = 0;
  bool weighted_targets = false;  // the source of the rows has weights (BatchSource::is_weighted)
  // Of a training of several ranks. They matter for training.shard only, and must then be the communicator's.
  int rank = 0;
  int ranks = 1;
};

// Since Create: what sharding adds to the exchange of gradients.
struct GatherStats {
  int64_t bytes_sent = 0;  // to other ranks: weights, and sums for the norm
  double seconds = 0;      // for weights; the step waits for all of it
};

struct StepResult {
  double loss = 0;           // mean over the tokens of all ranks, before the update; weighted: data/batch_source.h
  double gradient_norm = 0;  // of the mean gradient, before clipping
  double learning_rate = 0;
  double loss_z_score = 0;
  double norm_z_score = 0;
  bool updated = true;  // false if the NaN policy dropped the update
};

class Trainer {
 public:
  // What Create would reserve, by purpose; allocates nothing. f32 weights are their own master; bf16 ones have an f32
  // "master"; weights that the optimizer keeps as codes have neither.
  static kernels::MemoryPlan Plan(const TrainerOptions& options) { return CreateCounting(options)->memory_plan(); }

  // InvalidArgument, with the field, for a shape that is none or that a method of the spec does not fit.
  static absl::Status Check(const TrainerOptions& options);

  // A trainer without memory, of which only the plan, names, shapes and layout may be used. `options` must pass Check.
  static std::unique_ptr<Trainer> CreateCounting(const TrainerOptions& options);

  // Errors of Check, FailedPrecondition if the device is not there, and ResourceExhausted if the memory cannot be had.
  // Weights are zero.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(const TrainerOptions& options);

  // Makes what the exchange of gradients carries from step to step, so that it can be restored before the ranks meet.
  // InvalidArgument for layer types that do not fit the model. Not needed for one rank.
  absl::Status PrepareExchange(const comm::ExchangeOptions& options, int rank, int ranks);

  // Joins the ranks. Call before the first step if there are several. `communicator` is borrowed; its calls are made by
  // the exchange's thread during a backward, and by the caller's between. The first form after PrepareExchange, the
  // second without. Sharded bf16 weights are whole on all ranks when this returns, whatever was restored.
  absl::Status Connect(comm::Communicator* communicator);
  absl::Status Connect(const comm::ExchangeOptions& options, comm::Communicator* communicator);

  // State of step 0 with initial weights from the seed.
  void Initialize();
  // The tensors that lead (masters, or weights if f32), as ListParameters. After writing them, call RoundWeights. Those
  // of weights that are codes only, and of bf16 weights whose masters are shared out, are for writing: f32 numbers,
  // which live in the gradients' memory. With shard grads those share memory: write one, call RoundWeight for it, write
  // the next. All ranks write the same.
  const std::vector<kernels::TensorView>& leading_weights() const { return leading_; }
  // Makes bf16 weights from their masters, and the nearest codes from what was written; or of one parameter.
  void RoundWeights();
  void RoundWeight(size_t parameter);
  // The weights as the next forward reads them, as ListParameters; those that are codes are decoded into the gradients'
  // memory. Valid until the next step or call.
  const model::NetworkTensors& DecodedWeights();

  // FailedPrecondition under NanPolicy::kFail, or after kMaxDroppedUpdates in a row under kSkip, if the loss or the
  // norm is not finite.
  absl::StatusOr<StepResult> Step(data::BatchSource& source);
  // A step of which every micro-batch is what network().tokens() and targets() hold: for benchmarks.
  absl::StatusOr<StepResult> StepOnLoadedBatch();

  // Mean loss over the labels of the first `batches` micro-batches of the validation split, shared out over the ranks;
  // the same number on all. `should_stop` is polled between batches, on all ranks alike, and ends it early with
  // Cancelled.
  absl::StatusOr<double> Evaluate(const data::BatchSource& source, int64_t batches,
                                  const std::function<absl::StatusOr<bool>()>& should_stop);

  // Adds "masked_fraction_..." of the last Evaluate (worker/linear/mask_counting_scheme.h): what the masks of the
  // linear scheme stop in its first micro-batch. So they are rank 0's, and the same for any number of ranks.
  void AddMaskMetrics(std::map<std::string, double>* metrics) const {
    if (mask_counts_ != nullptr) mask_counts_->AddMetrics(metrics);
  }

  // Steps done, dropped ones among them.
  int64_t step() const { return step_; }

  // All tensors that, with StateText, are the state between two steps. bf16 weights follow from their masters.
  const std::vector<optim::NamedTensor>& state() const { return state_; }
  std::string StateText() const;
  // Call after the tensors of state() have been written; if sharded, before Connect.
  absl::Status RestoreState(const std::string& state_text);

  const TrainerOptions& options() const { return options_; }
  const std::vector<model::Parameter>& parameters() const { return parameters_; }
  // Those that are codes have no data.
  const model::NetworkTensors& weights() const { return weights_.values; }
  // After the last step: the optimizer's last word on the weights (Optimizer::Finalize), and what it pruned.
  void Finalize() {
    optimizer_->Finalize(stream_);
    kernels::WaitForDevice(stream_);
  }
  std::vector<optim::PruningMask> pruning_masks() const { return optimizer_->pruning_masks(); }
  // What the optimizer tells of its last update.
  void AddOptimizerMetrics(std::map<std::string, double>* metrics) const { optimizer_->AddMetrics(metrics); }
  const linear::LinearScheme& scheme() const { return *scheme_; }
  const model::Gradients& gradients() const { return gradients_; }
  const kernels::MemoryPlan& memory_plan() const { return arena_.plan(); }
  // What of it is memory of the host, of a run on a device.
  const kernels::MemoryPlan& pinned_plan() const { return arena_.pinned_plan(); }
  kernels::Stream& stream() { return stream_; }
  model::Network& network() { return *network_; }
  // The gradients of each layer (Parameter::layer), as the exchange takes them.
  std::vector<comm::GradientLayer> GradientLayers() const;
  // What PrepareExchange made, beside state(): null without.
  comm::ExchangeState* exchange_state() { return exchange_state_.get(); }
  // Null before Connect.
  const comm::GradientExchange* exchange() const { return exchange_.get(); }
  bool is_sharded() const { return is_sharded_; }
  const GatherStats& gather_stats() const { return gather_stats_; }
  // Of one step.
  int64_t GatherBytesPerStep() const;
  // Has the exchange stop half way, where the sharding wants no more. InvalidArgument for gradients in parts that are
  // coded.
  absl::Status AddScatter(comm::ExchangeOptions* options) const;

 private:
  Trainer(const TrainerOptions& options, kernels::Arena arena);
  absl::StatusOr<StepResult> StepFrom(data::BatchSource* source);
  void Allocate();
  void AllocateGradients();
  void AllocateGather();
  std::vector<optim::OptimizerParameter> ListUpdated() const;
  void RoundMasters();
  kernels::TensorView OwnPart(size_t parameter, const kernels::TensorView& whole) const;
  bool keeps_gradient_parts() const { return is_sharded_ && options_.training.shard == spec::Shard::kGrads; }
  absl::Status GatherWeights();
  absl::Status CheckWeightsAgree() const;
  double SumLosses() const;  // after Synchronize
  data::BatchViews BatchMemory() const;
  absl::Status CheckFinite(const StepResult& result);
  void CalibrateScheme(bool draws_tokens);

  const TrainerOptions options_;
  kernels::Arena arena_;
  kernels::Stream stream_;
  const std::vector<model::Parameter> parameters_;
  const bool is_sharded_;
  const comm::ShardMap shards_;  // of one rank if it is not sharded

  std::unique_ptr<linear::LinearScheme> scheme_;
  linear::MaskCountingScheme* mask_counts_ = nullptr;  // a part of scheme_, if that has masks
  TrainedWeights weights_;
  std::vector<kernels::TensorView> leading_;
  model::NetworkTensors decoded_;                    // of the last DecodedWeights
  model::Gradients gradients_;                       // with gradients in parts: without `flat`, layers sharing memory
  std::vector<kernels::TensorView> gradient_parts_;  // by parameter: where this rank's mean is after the exchange
  std::vector<int> previous_in_slot_;                // GradientSlots::previous
  std::unique_ptr<optim::Optimizer> optimizer_;
  std::unique_ptr<model::Network> network_;
  std::unique_ptr<GradientNorm> norm_;
  std::unique_ptr<comm::PartGather> gather_;  // if sharded
  kernels::TensorView gather_workspace_;
  std::vector<optim::NamedTensor> state_;

  comm::Communicator* communicator_ = nullptr;
  comm::ExchangeOptions exchange_options_;
  std::unique_ptr<comm::ExchangeState> exchange_state_;
  std::unique_ptr<comm::GradientExchange> exchange_;
  std::function<void(int)> on_layer_ready_, on_layer_begin_;
  GatherStats gather_stats_;
  std::unique_ptr<comm::RankSums> rank_sums_;  // null before Connect

  int64_t step_ = 0;
  int64_t updates_ = 0;  // step_ less the dropped ones
  int64_t dropped_in_a_row_ = 0;
  std::unique_ptr<ZScore> loss_z_score_, norm_z_score_;
};

inline constexpr int64_t kMaxDroppedUpdates = 10;

}  // namespace trainyard::train
