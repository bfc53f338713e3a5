#include "worker/train/trainer.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "kernels/codec/hash64.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/philox.h"
#include "kernels/pointwise/elementwise.h"
#include "worker/comm/rank_agreement.h"
#include "worker/linear/coded_weights_scheme.h"
#include "worker/linear/make_linear_scheme.h"
#include "worker/model/linear_sites.h"
#include "worker/optim/make_optimizer.h"
#include "worker/train/gradient_slots.h"
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

std::vector<optim::OptimizerPart> PartsOf(const model::Parameter& parameter) {
  std::vector<optim::OptimizerPart> parts;
  for (const model::HuggingFacePart& part : parameter.parts) parts.push_back({part.name, part.row_begin, part.rows});
  return parts;
}

// All of a run's weights as the optimizer takes them.
std::vector<optim::OptimizerParameter> ListWhole(const std::vector<model::Parameter>& parameters,
                                                 const TrainedWeights& weights,
                                                 const model::NetworkTensors& gradients) {
  std::vector<optim::OptimizerParameter> updated;
  for (size_t i = 0; i < parameters.size(); ++i) {
    updated.push_back({.name = parameters[i].name,
                       .weight = weights.values.all[i],
                       .master = weights.masters[i],
                       .gradient = gradients.all[i],
                       .decays = parameters[i].decays(),
                       .parts = PartsOf(parameters[i]),
                       .index = static_cast<uint32_t>(i),
                       .coded = weights.coded[i]});
  }
  return updated;
}

absl::Status CheckUpdated(const TrainerOptions& options) {
  Arena arena = Arena::CountOnly();
  const TrainedWeights weights =
      AllocateTrainedWeights(options.config, options.dtype, options.training.optimizer, arena);
  const model::Gradients gradients = model::AllocateGradients(options.config, arena);
  return CheckOptimizer(options.training.optimizer,
                        ListWhole(model::ListParameters(options.config), weights, gradients.tensors));
}

absl::Status CheckOffload(const TrainerOptions& options) {
  const spec::OffloadOptions& offload = options.training.offload;
  if (!offload.any()) return absl::OkStatus();
  if (options.device == kernels::Device::kCpu) {
    return absl::InvalidArgumentError(
        "training.offload: there is no device to spare: on the CPU all memory is the host's; leave it empty");
  }
  if ((offload.moments || offload.master) && !optim::TakesShards(options.training.optimizer)) {
    return absl::InvalidArgumentError(
        "training.offload: the optimizer looks at whole matrices or keeps weights as codes, so its state cannot come "
        "to the device in pieces; take residuals or nothing");
  }
  if (offload.residuals && options.training.recompute != spec::Recompute::kBlock) {
    return absl::InvalidArgumentError("training.offload: residuals needs training.recompute block");
  }
  return absl::OkStatus();
}

bool IsSharded(const TrainerOptions& options) {
  TY_CHECK(options.rank >= 0 && options.rank < options.ranks);
  return options.training.shard != spec::Shard::kNone && options.ranks > 1;
}

std::vector<int64_t> SizesOf(const std::vector<model::Parameter>& parameters) {
  std::vector<int64_t> sizes;
  for (const model::Parameter& parameter : parameters) sizes.push_back(parameter.size());
  return sizes;
}

}  // namespace

Trainer::Trainer(const TrainerOptions& options, Arena arena)
    : options_(WithSchemeParameters(options)),
      arena_(std::move(arena)),
      // A plan of a run on a device is made where there is none.
      stream_(arena_.counts_only() ? kernels::Device::kCpu : arena_.device(),
              arena_.counts_only() ? 1 : options.threads),
      parameters_(model::ListParameters(options_.config)),
      is_sharded_(IsSharded(options_)),
      shards_(SizesOf(parameters_), is_sharded_ ? options_.ranks : 1) {
  Allocate();
}

// What of a tensor that is whole this rank has to look after: nothing, where its part is empty.
TensorView Trainer::OwnPart(size_t parameter, const TensorView& whole) const {
  const comm::Part part = shards_.part(parameter, is_sharded_ ? options_.rank : 0);
  return part.size() == 0 ? TensorView() : whole.Reshape({whole.size()}).Slice(part.begin, part.size());
}

void Trainer::AllocateGradients() {
  if (!keeps_gradient_parts()) {
    gradients_ = model::AllocateGradients(options_.config, arena_);
    for (size_t i = 0; i < parameters_.size(); ++i) gradient_parts_.push_back(OwnPart(i, gradients_.tensors.all[i]));
    return;
  }
  GradientSlots slots = AllocateGradientSlots(options_.config, arena_);
  gradients_.tensors = std::move(slots.tensors);
  previous_in_slot_ = std::move(slots.previous);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const int64_t elements = shards_.part(i, options_.rank).size();
    gradient_parts_.push_back(elements == 0 ? TensorView() : arena_.Allocate("gradients", DType::kF32, {elements}));
  }
}

void Trainer::AllocateGather() {
  if (!is_sharded_) return;
  gather_ = std::make_unique<comm::PartGather>(weights_.values.all, shards_, options_.rank);
  if (gather_->WorkspaceBytes() > 0) {
    gather_workspace_ = arena_.Allocate("communication", DType::kU8, {gather_->WorkspaceBytes()});
  }
}

std::vector<optim::OptimizerParameter> Trainer::ListUpdated() const {
  std::vector<optim::OptimizerParameter> all = ListWhole(parameters_, weights_, gradients_.tensors);
  if (!is_sharded_) return all;
  std::vector<optim::OptimizerParameter> updated;
  for (size_t i = 0; i < all.size(); ++i) {
    const comm::Part part = shards_.part(i, options_.rank);
    if (part.size() == 0) continue;
    optim::OptimizerParameter& own = updated.emplace_back(std::move(all[i]));
    own.weight = OwnPart(i, weights_.values.all[i]);
    own.gradient = gradient_parts_[i];
    own.parts.clear();
    own.first_element = part.begin;
    own.whole_size = shards_.size(i);
  }
  return updated;
}

void Trainer::Allocate() {
  const spec::OffloadOptions& offload = options_.training.offload;
  MasterOptions masters{.on_host = offload.master};
  for (size_t i = 0; is_sharded_ && i < parameters_.size(); ++i)
    masters.parts.push_back(shards_.part(i, options_.rank));
  weights_ =
      AllocateTrainedWeights(options_.config, options_.dtype, options_.training.optimizer, arena_, std::move(masters));
  AllocateGradients();

  for (size_t i = 0; i < parameters_.size(); ++i) {
    const TensorView &value = weights_.values.all[i], &master = weights_.masters[i];
    const TensorView& gradient = gradients_.tensors.all[i];
    AppendWeightState(weights_, i, parameters_[i].name, &state_);
    // Of a coded weight, and of one whose master is in parts, f32 numbers exist between steps only, in memory that the
    // next step's gradient overwrites.
    const bool is_for_writing = weights_.coded[i] || (is_sharded_ && options_.dtype != DType::kF32);
    leading_.push_back(is_for_writing ? gradient : master ? master : value);
  }
  optimizer_ = MakeOptimizer(options_.training.optimizer, ListUpdated(), arena_, offload);
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
                            .offload_inputs = offload.residuals,
                            .head_chunks = options_.training.lm_head_chunks,
                            .threads = options_.threads,
                            .weighted_targets = options_.weighted_targets},
      scheme_.get(), &weights_.values, &gradients_.tensors, arena_);

  norm_ = std::make_unique<GradientNorm>(gradient_parts_, shards_, is_sharded_ ? options_.rank : 0, arena_);
  AllocateGather();
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
  if (IsSharded(options) && !optim::TakesShards(options.training.optimizer)) {
    return absl::InvalidArgumentError(
        "training.shard: the optimizer looks at whole matrices or keeps weights as codes, so its state cannot be in "
        "parts; take none");
  }
  TY_RETURN_IF_ERROR(CheckOffload(options));
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

absl::Status Trainer::AddScatter(comm::ExchangeOptions* options) const {
  if (!is_sharded_) return absl::OkStatus();
  if (options->communication.HasCodecs()) {
    // All ranks get the whole of a coded sum, so that all decode the same bytes; each takes its part of it.
    if (!keeps_gradient_parts()) return absl::OkStatus();
    return absl::InvalidArgumentError("training.shard: grads needs communication.codec identity for all layer types");
  }
  options->scatter = comm::ScatterOptions{.map = shards_,
                                          .parts = gradient_parts_,
                                          .by_layer = keeps_gradient_parts(),
                                          .accumulates = keeps_gradient_parts() && options_.training.accumulation > 1};
  return absl::OkStatus();
}

absl::Status Trainer::PrepareExchange(const comm::ExchangeOptions& options, int rank, int ranks) {
  if (options_.training.shard != spec::Shard::kNone) {
    TY_CHECK_EQ(options_.rank, rank);
    TY_CHECK_EQ(options_.ranks, ranks);
  }
  exchange_options_ = options;
  if (options_.device == kernels::Device::kCuda) exchange_options_.compute = &stream_;
  TY_RETURN_IF_ERROR(AddScatter(&exchange_options_));
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
  on_layer_begin_ = [this](int layer) {
    const int previous = previous_in_slot_[static_cast<size_t>(layer)];
    if (previous >= 0) exchange_->WaitForLayer(previous);
  };
  rank_sums_ = std::make_unique<comm::RankSums>(communicator, 2);
  // A checkpoint has given each rank its part of the masters.
  return is_sharded_ ? GatherWeights() : absl::OkStatus();
}

absl::Status Trainer::GatherWeights() {
  const absl::Duration start = RealClock()->Monotonic();
  TY_RETURN_IF_ERROR(gather_->Gather(gather_workspace_, *communicator_, stream_));
  TY_RETURN_IF_ERROR(stream_.Synchronize());
  gather_stats_.bytes_sent += gather_->BytesSent();
  gather_stats_.seconds += absl::ToDoubleSeconds(RealClock()->Monotonic() - start);
  return absl::OkStatus();
}

int64_t Trainer::GatherBytesPerStep() const {
  return is_sharded_ ? gather_->BytesSent() + norm_->BytesSent() : 0;
}

// Gradients differ between ranks that keep parts of them, so it is the weights that are compared.
absl::Status Trainer::CheckWeightsAgree() const {
  uint64_t hash = 0;
  for (const TensorView& weight : weights_.values.all) {
    hash = kernels::Hash64(weight.data(), static_cast<size_t>(weight.bytes()), hash);
  }
  return AgreeOnHash(*communicator_, step_, hash);
}

void Trainer::Initialize() {
  for (const optim::NamedTensor& tensor : state_) Fill({.y = tensor.tensor}, stream_);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    InitializeParameter(parameters_[i], static_cast<uint32_t>(i), options_.seed, leading_[i], stream_);
    RoundWeight(i);
  }
  step_ = updates_ = dropped_in_a_row_ = 0;
  loss_z_score_->set_count(0);
  norm_z_score_->set_count(0);
  if (exchange_state_ != nullptr) exchange_state_->Reset();
  kernels::WaitForDevice(stream_);
}

void Trainer::RoundWeights() {
  for (size_t i = 0; i < parameters_.size(); ++i) RoundWeight(i);
  kernels::WaitForDevice(stream_);
}

void Trainer::RoundWeight(size_t parameter) {
  const TensorView &leading = leading_[parameter], &value = weights_.values.all[parameter];
  if (weights_.coded[parameter]) {
    EncodeMatrix({.x = leading, .matrix = weights_.coded[parameter]}, stream_);
  } else if (options_.dtype != DType::kF32) {
    Convert({.x = leading, .y = value}, stream_);
    const TensorView& master = weights_.masters[parameter];
    if (is_sharded_ && master) Convert({.x = OwnPart(parameter, leading), .y = master}, stream_);
  }
}

// Of a sharded training, this rank's parts.
void Trainer::RoundMasters() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (weights_.masters[i]) Convert({.x = weights_.masters[i], .y = OwnPart(i, weights_.values.all[i])}, stream_);
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
  TY_CHECK(!is_sharded_ || exchange_ != nullptr);
  if (step_ == 0 && options_.config.site_parameters > 0) CalibrateScheme(source != nullptr);
  double loss_sum = 0;
  for (int micro = 0; micro < training.accumulation; ++micro) {
    if (source != nullptr) TY_RETURN_IF_ERROR(source->NextBatch(BatchMemory()));
    // Gradients that are kept in parts leave this rank with every micro-batch.
    const bool in_parts = keeps_gradient_parts();
    const bool exchanges = exchange_ != nullptr && (in_parts || micro + 1 == training.accumulation);
    if (exchanges) exchange_->Begin(step_, 1.0f / static_cast<float>(ranks), /*accumulate=*/in_parts && micro > 0);
    network_->ForwardBackward(
        {.loss_scale = static_cast<float>(1.0 / static_cast<double>(tokens)),
         .accumulate = micro > 0 && !in_parts,
         .random = {.seed = options_.seed, .step = step_, .micro_batch = int64_t{rank} * training.accumulation + micro},
         .on_layer_ready = exchanges ? &on_layer_ready_ : nullptr,
         .on_layer_begin = in_parts ? &on_layer_begin_ : nullptr},
        stream_);
    TY_RETURN_IF_ERROR(stream_.Synchronize());
    loss_sum += SumLosses();
    if (exchanges) TY_RETURN_IF_ERROR(exchange_->Wait());
  }
  if (rank_sums_ != nullptr) TY_RETURN_IF_ERROR(rank_sums_->Sum(&loss_sum, 1));

  TY_RETURN_IF_ERROR(norm_->Measure(static_cast<float>(training.clip_norm), communicator_, stream_));
  if (is_sharded_) gather_stats_.bytes_sent += norm_->BytesSent();

  StepResult result;
  result.loss = loss_sum / static_cast<double>(tokens * ranks);
  result.gradient_norm = norm_->norm();
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
                        .gradient_factor = norm_->clip_factor(),
                        .steps = training.steps,
                        .ranks = ranks,
                        .seed = options_.seed},
                       stream_);
    if (is_sharded_) TY_RETURN_IF_ERROR(GatherWeights());
  }
  ++step_;
  TY_RETURN_IF_ERROR(stream_.Synchronize());
  const int64_t hash_interval = exchange_options_.communication.hash_check_interval_steps;
  if (is_sharded_ && hash_interval > 0 && step_ % hash_interval == 0) TY_RETURN_IF_ERROR(CheckWeightsAgree());
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
    Convert({.x = OwnPart(i, weights_.values.all[i]), .y = weights_.masters[i]}, stream_);
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
