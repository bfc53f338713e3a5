#include "worker/train/trainer.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/philox.h"
#include "kernels/optim/global_norm.h"
#include "kernels/pointwise/elementwise.h"
#include "worker/linear/coded_weights_scheme.h"
#include "worker/linear/make_linear_scheme.h"
#include "worker/model/linear_sites.h"
#include "worker/optim/make_optimizer.h"
#include "worker/train/schedule.h"

namespace trainyard::train {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::TensorView;

absl::Status CheckSites(const TrainerOptions& options) {
  const int64_t rows = options.training.micro_batch * options.sequence_length;
  absl::Status status;
  ForEachSite(model::ListLinearSites(options.config, rows, options.dtype),
              [&](const linear::LinearSite& site) { status.Update(CheckSite(options.training.linear, site)); });
  return status;
}

TrainerOptions WithSchemeParameters(TrainerOptions options) {
  options.config.site_parameters = linear::MakeLinearScheme(options.training.linear)->ParameterCount();
  return options;
}

// All of a run's weights as the optimizer takes them.
std::vector<optim::OptimizerParameter> ListUpdated(const std::vector<model::Parameter>& parameters,
                                                   const TrainedWeights& weights, const model::Gradients& gradients) {
  std::vector<optim::OptimizerParameter> updated;
  for (size_t i = 0; i < parameters.size(); ++i) {
    updated.push_back({.name = parameters[i].name,
                       .weight = weights.values.all[i],
                       .master = weights.masters[i],
                       .gradient = gradients.tensors.all[i],
                       .decays = parameters[i].decays(),
                       .index = static_cast<uint32_t>(i),
                       .coded = weights.coded[i]});
    for (const model::HuggingFacePart& part : parameters[i].parts) {
      updated.back().parts.push_back({part.name, part.row_begin, part.rows});
    }
  }
  return updated;
}

absl::Status CheckUpdated(const TrainerOptions& options) {
  Arena arena = Arena::CountOnly();
  const TrainedWeights weights =
      AllocateTrainedWeights(options.config, options.dtype, options.training.optimizer, arena);
  const model::Gradients gradients = AllocateGradients(options.config, arena);
  return CheckOptimizer(options.training.optimizer,
                        ListUpdated(model::ListParameters(options.config), weights, gradients));
}

}  // namespace

Trainer::Trainer(const TrainerOptions& options, Arena arena)
    : options_(WithSchemeParameters(options)),
      arena_(std::move(arena)),
      // A plan of a run on a device is made where there is none.
      stream_(arena_.counts_only() ? kernels::Device::kCpu : arena_.device(),
              arena_.counts_only() ? 1 : options.threads),
      parameters_(model::ListParameters(options_.config)) {
  Allocate();
}

void Trainer::Allocate() {
  weights_ = AllocateTrainedWeights(options_.config, options_.dtype, options_.training.optimizer, arena_);
  gradients_ = AllocateGradients(options_.config, arena_);

  for (size_t i = 0; i < parameters_.size(); ++i) {
    const TensorView &value = weights_.values.all[i], &master = weights_.masters[i];
    const TensorView& gradient = gradients_.tensors.all[i];
    AppendWeightState(weights_, i, parameters_[i].name, &state_);
    // Of a coded weight numbers exist between steps only, in memory that the next step's gradient overwrites.
    leading_.push_back(weights_.coded[i] ? gradient : master ? master : value);
  }
  optimizer_ = MakeOptimizer(options_.training.optimizer, ListUpdated(parameters_, weights_, gradients_), arena_);
  state_.insert(state_.end(), optimizer_->state().begin(), optimizer_->state().end());

  scheme_ = linear::MakeLinearScheme(options_.training.linear);
  if (std::unique_ptr<linear::MaskProbe> probe = linear::MakeMaskProbe(options_.training.linear)) {
    std::unique_ptr<linear::MaskCountingScheme> counting =
        MakeMaskCountingScheme(std::move(scheme_), std::move(probe), options_.training.linear.exclude);
    mask_counts_ = counting.get();
    scheme_ = std::move(counting);
  }
  std::vector<kernels::CodedMatrix> coded = CodedBySite(options_.config, weights_);
  if (!coded.empty()) scheme_ = linear::MakeCodedWeightsScheme(std::move(scheme_), std::move(coded));
  network_ = std::make_unique<model::Network>(
      options_.config,
      model::NetworkOptions{.batch = options_.training.micro_batch,
                            .seq = options_.sequence_length,
                            .dtype = options_.dtype,
                            .recompute_blocks = options_.training.recompute == spec::Recompute::kBlock,
                            .head_chunks = options_.training.lm_head_chunks,
                            .threads = options_.threads,
                            .weighted_targets = options_.weighted_targets},
      scheme_.get(), &weights_.values, &gradients_.tensors, arena_);

  norm_ = arena_.AllocateShared("workspace", DType::kF32, {1});
  clip_factor_ = arena_.Allocate("workspace", DType::kF32, {1});
  norm_workspace_ =
      arena_.Allocate("workspace", DType::kU8, {kernels::GlobalNormWorkspaceBytes({&gradients_.flat, 1})});
  const auto make_z_score = [this](const char* name) {
    const TensorView window = arena_.AllocateShared("workspace", DType::kF32, {kZScoreWindow});
    state_.push_back({absl::StrCat("z_score/", name), window});
    return std::make_unique<ZScore>(window);
  };
  loss_z_score_ = make_z_score("loss");
  norm_z_score_ = make_z_score("gradient_norm");
}

std::unique_ptr<Trainer> Trainer::CreateCounting(const TrainerOptions& options) {
  return std::unique_ptr<Trainer>(new Trainer(options, Arena::CountOnly(options.device)));
}

absl::Status Trainer::Check(const TrainerOptions& options) {
  TY_RETURN_IF_ERROR(Validate(options.config));
  if (options.sequence_length > options.config.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrCat("data.sequence_length: ", options.sequence_length,
                     " is more than the model's max_position_embeddings: ", options.config.max_positions));
  }
  TY_RETURN_IF_ERROR(CheckSites(options));
  TY_RETURN_IF_ERROR(CheckCodedWeights(options.training.optimizer, model::ListParameters(options.config)));
  return CheckUpdated(options);
}

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(const TrainerOptions& options) {
  TY_RETURN_IF_ERROR(Check(options));
  if (options.device == kernels::Device::kCuda) TY_RETURN_IF_ERROR(kernels::CheckCudaDevice());
  const std::unique_ptr<Trainer> counting = CreateCounting(options);
  TY_ASSIGN_OR_RETURN(Arena arena, Arena::Reserve(counting->arena_));
  std::unique_ptr<Trainer> trainer(new Trainer(options, std::move(arena)));
  TY_CHECK_EQ(trainer->arena_.used_bytes(), counting->arena_.used_bytes());
  trainer->network_->Prepare(trainer->stream_);
  TY_RETURN_IF_ERROR(trainer->stream_.Synchronize());
  return trainer;
}

std::vector<comm::GradientLayer> Trainer::GradientLayers() const {
  std::vector<comm::GradientLayer> layers(static_cast<size_t>(options_.config.layers) + 2);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    layers[static_cast<size_t>(parameters_[i].layer)].tensors.push_back(
        {gradients_.tensors.all[i], static_cast<int>(parameters_[i].shape.size()), parameters_[i].name});
  }
  return layers;
}

absl::Status Trainer::PrepareExchange(const comm::ExchangeOptions& options, int rank, int ranks) {
  exchange_options_ = options;
  if (options_.device == kernels::Device::kCuda) exchange_options_.compute = &stream_;
  TY_ASSIGN_OR_RETURN(exchange_state_, comm::ExchangeState::Create(exchange_options_, GradientLayers(), rank, ranks));
  return absl::OkStatus();
}

absl::Status Trainer::Connect(const comm::ExchangeOptions& options, comm::Communicator* communicator) {
  TY_RETURN_IF_ERROR(PrepareExchange(options, communicator->rank(), communicator->size()));
  return Connect(communicator);
}

absl::Status Trainer::Connect(comm::Communicator* communicator) {
  TY_CHECK(exchange_state_ != nullptr);
  TY_ASSIGN_OR_RETURN(exchange_, comm::GradientExchange::Create(exchange_options_, GradientLayers(), communicator,
                                                                exchange_state_.get()));
  communicator_ = communicator;
  on_layer_ready_ = [this](int layer) { exchange_->LayerReady(layer); };
  rank_sums_ = std::make_unique<comm::RankSums>(communicator, 2);
  return absl::OkStatus();
}

void Trainer::Initialize() {
  for (const optim::NamedTensor& tensor : state_) Fill({.y = tensor.tensor}, stream_);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    InitializeParameter(parameters_[i], static_cast<uint32_t>(i), options_.seed, leading_[i], stream_);
  }
  RoundWeights();
  step_ = updates_ = dropped_in_a_row_ = 0;
  loss_z_score_->set_count(0);
  norm_z_score_->set_count(0);
  if (exchange_state_ != nullptr) exchange_state_->Reset();
  kernels::WaitForDevice(stream_);
}

void Trainer::RoundWeights() {
  RoundMasters();
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (weights_.coded[i]) EncodeMatrix({.x = leading_[i], .matrix = weights_.coded[i]}, stream_);
  }
  kernels::WaitForDevice(stream_);
}

void Trainer::RoundMasters() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (weights_.masters[i]) Convert({.x = weights_.masters[i], .y = weights_.values.all[i]}, stream_);
  }
}

const model::NetworkTensors& Trainer::DecodedWeights() {
  std::vector<TensorView> all = weights_.values.all;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!weights_.coded[i]) continue;
    all[i] = TensorView(leading_[i].data(), options_.dtype, {all[i].dim(0), all[i].dim(1)});
    DecodeMatrix({.matrix = weights_.coded[i], .y = all[i]}, stream_);
  }
  decoded_ = BindTensors(options_.config, std::move(all));
  kernels::WaitForDevice(stream_);
  return decoded_;
}

absl::StatusOr<StepResult> Trainer::Step(data::BatchSource& source) {
  TY_CHECK(source.is_weighted() == options_.weighted_targets);
  return StepFrom(&source);
}

absl::StatusOr<StepResult> Trainer::StepOnLoadedBatch() {
  return StepFrom(nullptr);
}

absl::StatusOr<StepResult> Trainer::StepFrom(data::BatchSource* source) {
  const spec::TrainingOptions& training = options_.training;
  const int64_t tokens = network_->losses().size() * training.accumulation;  // of this rank in this step
  const int rank = communicator_ == nullptr ? 0 : communicator_->rank();
  const int ranks = communicator_ == nullptr ? 1 : communicator_->size();
  if (step_ == 0 && options_.config.site_parameters > 0) CalibrateScheme(source != nullptr);
  double loss_sum = 0;
  for (int micro = 0; micro < training.accumulation; ++micro) {
    if (source != nullptr) TY_RETURN_IF_ERROR(source->NextBatch(BatchMemory()));
    const bool exchanges = exchange_ != nullptr && micro + 1 == training.accumulation;
    if (exchanges) exchange_->Begin(step_, 1.0f / static_cast<float>(ranks));
    network_->ForwardBackward(
        {.loss_scale = static_cast<float>(1.0 / static_cast<double>(tokens)),
         .accumulate = micro > 0,
         .random = {.seed = options_.seed, .step = step_, .micro_batch = int64_t{rank} * training.accumulation + micro},
         .on_layer_ready = exchanges ? &on_layer_ready_ : nullptr},
        stream_);
    TY_RETURN_IF_ERROR(stream_.Synchronize());
    loss_sum += SumLosses();
  }
  if (exchange_ != nullptr) TY_RETURN_IF_ERROR(exchange_->Wait());
  if (rank_sums_ != nullptr) TY_RETURN_IF_ERROR(rank_sums_->Sum(&loss_sum, 1));

  GlobalNorm({.tensors = {&gradients_.flat, 1},
              .max_norm = static_cast<float>(training.clip_norm),
              .norm = norm_,
              .clip_factor = clip_factor_,
              .workspace = norm_workspace_},
             stream_);
  TY_RETURN_IF_ERROR(stream_.Synchronize());

  StepResult result;
  result.loss = loss_sum / static_cast<double>(tokens * ranks);
  result.gradient_norm = *norm_.as<float>();
  result.learning_rate =
      optim::PeakLearningRate(training.optimizer) * RateMultiplier(training.schedule, step_, training.steps);
  result.updated = std::isfinite(result.loss) && std::isfinite(result.gradient_norm);
  if (!result.updated) TY_RETURN_IF_ERROR(CheckFinite(result));
  result.loss_z_score = loss_z_score_->Push(result.loss);
  result.norm_z_score = norm_z_score_->Push(result.gradient_norm);
  if (result.updated) {
    dropped_in_a_row_ = 0;
    ++updates_;
    optimizer_->Update({.update = updates_,
                        .learning_rate = result.learning_rate,
                        .gradient_factor = clip_factor_,
                        .steps = training.steps,
                        .ranks = ranks,
                        .seed = options_.seed},
                       stream_);
  }
  ++step_;
  TY_RETURN_IF_ERROR(stream_.Synchronize());
  return result;
}

// Before the first step, so that it sees weights that were imported. Tokens that follow from the seed give all ranks
// the same bits.
void Trainer::CalibrateScheme(bool draws_tokens) {
  const TensorView& tokens = network_->tokens();
  const kernels::PhiloxKey key{.seed = options_.seed,
                               .purpose = kernels::kRandomInit,
                               .tensor = static_cast<uint32_t>(parameters_.size())};  // behind those of the weights
  for (int64_t i = 0; draws_tokens && i < tokens.size(); ++i) {
    const uint32_t word = RandomWord(key, static_cast<uint64_t>(i));
    tokens.as<int32_t>()[i] = static_cast<int32_t>(word % static_cast<uint64_t>(options_.config.vocab_size));
  }
  network_->CalibrateScheme(stream_);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!parameters_[i].belongs_to_scheme || !weights_.masters[i]) continue;
    Convert({.x = weights_.values.all[i], .y = weights_.masters[i]}, stream_);
  }
}

absl::Status Trainer::CheckFinite(const StepResult& result) {
  const std::string what = absl::StrCat("step ", step_ + 1, ": loss ", result.loss, ", gradient norm ",
                                        result.gradient_norm, ": not finite");
  if (options_.training.nan_policy == spec::NanPolicy::kFail) {
    return absl::FailedPreconditionError(absl::StrCat(what, " (training.nan_policy is fail)"));
  }
  if (++dropped_in_a_row_ >= kMaxDroppedUpdates) {
    return absl::FailedPreconditionError(absl::StrCat(what, ", as in ", dropped_in_a_row_ - 1, " steps before it"));
  }
  return absl::OkStatus();
}

absl::StatusOr<double> Trainer::Evaluate(const data::BatchSource& source, int64_t batches,
                                         const std::function<absl::StatusOr<bool>()>& should_stop) {
  const int64_t rank = communicator_ == nullptr ? 0 : communicator_->rank();
  const int64_t ranks = communicator_ == nullptr ? 1 : communicator_->size();
  const int64_t rows = options_.training.micro_batch;
  batches = std::min(batches, (source.validation_rows() + rows - 1) / rows);  // "all" is a number far beyond
  double sums[2] = {0, 0};                                                    // losses, tokens
  // All ranks make the same number of rounds; a rank without a batch left in the last round sits it out.
  for (int64_t first = 0; first < batches; first += ranks) {
    TY_ASSIGN_OR_RETURN(const bool stops, should_stop());
    if (stops) return absl::CancelledError("evaluation was broken off");
    if (first + rank >= batches) continue;
    TY_ASSIGN_OR_RETURN(const int64_t real_rows, source.ValidationBatch((first + rank) * rows, BatchMemory()));
    if (real_rows == 0) continue;
    const bool counts_masks = mask_counts_ != nullptr && first + rank == 0;
    if (counts_masks) mask_counts_->StartCounting();
    network_->Forward(stream_);
    TY_RETURN_IF_ERROR(stream_.Synchronize());
    if (counts_masks) mask_counts_->StopCounting();
    sums[0] += SumLosses();  // ignored targets have loss 0
    const int32_t* const targets = network_->targets().as<int32_t>();
    const int64_t positions = network_->targets().size();
    sums[1] += static_cast<double>(positions - std::count(targets, targets + positions, data::kIgnoredTarget));
  }
  if (rank_sums_ != nullptr) TY_RETURN_IF_ERROR(rank_sums_->Sum(sums, 2));
  if (sums[1] == 0) return absl::FailedPreconditionError("the data set has no validation windows");
  return sums[0] / sums[1];
}

data::BatchViews Trainer::BatchMemory() const {
  return {network_->tokens(), network_->targets(), network_->target_weights()};
}

double Trainer::SumLosses() const {
  const float* const losses = network_->losses().as<float>();
  double sum = 0;
  for (int64_t i = 0; i < network_->losses().size(); ++i) sum += losses[i];
  return sum;
}

std::string Trainer::StateText() const {
  return absl::StrCat(step_, " ", updates_, " ", dropped_in_a_row_, " ", loss_z_score_->count(), " ",
                      norm_z_score_->count());
}

absl::Status Trainer::RestoreState(const std::string& state_text) {
  std::vector<int64_t> numbers;
  for (absl::string_view part : absl::StrSplit(state_text, ' ')) {
    numbers.push_back(-1);
    if (!absl::SimpleAtoi(part, &numbers.back())) numbers.back() = -1;
  }
  if (numbers.size() != 5 || *std::min_element(numbers.begin(), numbers.end()) < 0) {
    return absl::DataLossError(absl::StrCat("trainer state \"", state_text, "\" is not five counts"));
  }
  step_ = numbers[0];
  updates_ = numbers[1];
  dropped_in_a_row_ = numbers[2];
  loss_z_score_->set_count(numbers[3]);
  norm_z_score_->set_count(numbers[4]);
  RoundMasters();
  return stream_.Synchronize();
}

}  // namespace trainyard::train
