#include "worker/train/gan_trainer.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/philox.h"
#include "kernels/optim/clip_weights.h"
#include "kernels/optim/global_norm.h"
#include "kernels/optim/moving_average.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/pointwise/interpolate.h"
#include "worker/train/gan_nets.h"

namespace trainyard::train {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::TensorView;

double Mean(const TensorView& values) {
  const float* const x = values.as<float>();
  double sum = 0;
  for (int64_t i = 0; i < values.size(); ++i) sum += static_cast<double>(x[i]);
  return sum / static_cast<double>(values.size());
}

int64_t SizeOf(const std::vector<int64_t>& shape) {
  int64_t size = 1;
  for (const int64_t extent : shape) size *= extent;
  return size;
}

}  // namespace

void FillLatents(uint64_t seed, int64_t call, uint32_t stream_number, int64_t first, const TensorView& latents,
                 kernels::Stream& stream) {
  const kernels::PhiloxKey key = {
      .seed = seed, .step = static_cast<uint32_t>(call), .purpose = kernels::kRandomLatent, .tensor = stream_number};
  const int64_t begin_element = first * latents.dim(1);
  float* const z = latents.as<float>();
  stream.pool().ParallelFor(latents.size(), 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) z[i] = RandomNormal(key, static_cast<uint64_t>(begin_element + i));
  });
}

GanTrainer::GanTrainer(const GanTrainerOptions& options, Arena arena)
    : options_(options),
      arena_(std::move(arena)),
      // A plan of a run on a device is made where there is none.
      stream_(arena_.counts_only() ? kernels::Device::kCpu : arena_.device(),
              arena_.counts_only() ? 1 : options.threads) {
  TY_CHECK_EQ(options_.gan.global_batch % options_.world_size, 0);
}

absl::StatusOr<std::unique_ptr<GanTrainer>> GanTrainer::CreateCounting(const GanTrainerOptions& options) {
  std::unique_ptr<GanTrainer> trainer(new GanTrainer(options, Arena::CountOnly(options.device)));
  TY_RETURN_IF_ERROR(trainer->Allocate());
  return trainer;
}

absl::StatusOr<std::unique_ptr<GanTrainer>> GanTrainer::Create(const GanTrainerOptions& options) {
  if (options.device == kernels::Device::kCuda) TY_RETURN_IF_ERROR(kernels::CheckCudaDevice());
  TY_ASSIGN_OR_RETURN(const std::unique_ptr<GanTrainer> counting, CreateCounting(options));
  TY_ASSIGN_OR_RETURN(Arena arena, Arena::Reserve(counting->arena_));
  std::unique_ptr<GanTrainer> trainer(new GanTrainer(options, std::move(arena)));
  TY_RETURN_IF_ERROR(trainer->Allocate());
  TY_CHECK_EQ(trainer->arena_.used_bytes(), counting->arena_.used_bytes());
  return trainer;
}

absl::Status GanTrainer::Allocate() {
  const spec::QodaGanOptions& gan = options_.gan;
  const int64_t rows = batch();
  TY_ASSIGN_OR_RETURN(generator_, model::GanNet::MakeGenerator(
                                      GeneratorOptions(gan, options_.sample_shape, rows, options_.threads), arena_));
  TY_ASSIGN_OR_RETURN(discriminator_,
                      model::GanNet::MakeDiscriminator(
                          DiscriminatorOptions(gan, options_.sample_shape, rows, options_.threads), arena_));

  std::vector<optim::GameParameter> updated;
  const auto add = [&](const model::GanNet& net, optim::Player player) {
    for (const model::GanParameter& parameter : net.parameters()) {
      updated.push_back({parameter.name, parameter.weight, parameter.gradient, player});
      state_.push_back({absl::StrCat("weight/", parameter.name), parameter.weight});
      own_gradients_.push_back(parameter.gradient);
    }
    flat_gradients_.push_back(net.gradients());
  };
  add(*generator_, optim::Player::kGenerator);
  add(*discriminator_, optim::Player::kDiscriminator);
  optimizer_ = MakeGameOptimizer(gan.optimizer, std::move(updated), arena_);
  state_.insert(state_.end(), optimizer_->state().begin(), optimizer_->state().end());
  local_state_ = optimizer_->local_state();

  ema_ = arena_.Allocate("averages", DType::kF32, {generator_->parameter_count()});
  state_.push_back({"average/ema", ema_});
  if (gan.ergodic_average) {
    average_ = arena_.Allocate("averages", DType::kF32, {generator_->parameter_count()});
    state_.push_back({"average/ergodic", average_});
  }

  const int64_t elements = SizeOf(options_.sample_shape);
  real_ = arena_.AllocateShared("activations", DType::kF32, {rows, elements});
  latents_ = arena_.AllocateShared("activations", DType::kF32, {rows, gan.latent_dim});
  real_scores_ = arena_.AllocateShared("activations", DType::kF32, {rows, 1});
  generated_scores_ = arena_.AllocateShared("activations", DType::kF32, {rows, 1});
  score_gradient_ = arena_.Allocate("activations", DType::kF32, {rows, 1});
  sample_gradient_ = arena_.Allocate("activations", DType::kF32, {rows, elements});
  if (gan.gp_lambda > 0) {
    shares_ = arena_.AllocateShared("activations", DType::kF32, {rows});
    interpolated_ = arena_.Allocate("activations", DType::kF32, {rows, elements});
  }
  norm_ = arena_.AllocateShared("workspace", DType::kF32, {1});
  norm_workspace_ = arena_.Allocate("workspace", DType::kU8, {kernels::GlobalNormWorkspaceBytes({flat_gradients_})});

  if (options_.world_size > 1) {
    TY_ASSIGN_OR_RETURN(exchange_state_, comm::ExchangeState::Create(ExchangeOptionsOnDevice(), GradientLayers(),
                                                                     options_.rank, options_.world_size));
    for (const comm::NamedState& state : exchange_state_->replicated_state()) {
      state_.push_back({state.name, state.tensor});
    }
    for (const comm::NamedState& state : exchange_state_->local_state()) {
      local_state_.push_back({state.name, state.tensor});
    }
  }
  return absl::OkStatus();
}

comm::ExchangeOptions GanTrainer::exchange_options() const {
  comm::ExchangeOptions options;
  options.communication = options_.communication;
  // The discriminator's gradients are the first bucket, or more than one: in one with the generator's they would wait
  // for its backward.
  options.communication.bucket_bytes =
      std::min(options.communication.bucket_bytes, discriminator_->parameter_count() * int64_t{sizeof(float)});
  options.seed = options_.seed;
  options.keeps_contribution = optimizer_->needs_contributions();
  return options;
}

comm::ExchangeOptions GanTrainer::ExchangeOptionsOnDevice() {
  comm::ExchangeOptions options = exchange_options();
  if (stream_.device() == kernels::Device::kCuda) options.compute = &stream_;
  return options;
}

std::vector<comm::GradientLayer> GanTrainer::GradientLayers() const {
  std::vector<comm::GradientLayer> layers(
      static_cast<size_t>(generator_->layer_count() + discriminator_->layer_count()));
  const auto add = [&](const model::GanNet& net, int first) {
    for (const model::GanParameter& parameter : net.parameters()) {
      layers[static_cast<size_t>(first + parameter.layer)].tensors.push_back(
          {.gradient = parameter.gradient, .dims = parameter.dims(), .name = parameter.name});
    }
  };
  add(*generator_, 0);
  add(*discriminator_, generator_->layer_count());
  return layers;
}

absl::Status GanTrainer::Connect(comm::Communicator* communicator) {
  TY_ASSIGN_OR_RETURN(exchange_, comm::GradientExchange::Create(ExchangeOptionsOnDevice(), GradientLayers(),
                                                                communicator, exchange_state_.get()));
  on_generator_layer_ = [this](int layer) { exchange_->LayerReady(layer); };
  on_discriminator_layer_ = [this](int layer) { exchange_->LayerReady(generator_->layer_count() + layer); };
  rank_sums_ = std::make_unique<comm::RankSums>(communicator, 4);
  return absl::OkStatus();
}

void GanTrainer::Initialize() {
  for (const optim::NamedTensor& tensor : state_) Fill({.y = tensor.tensor}, stream_);
  for (const optim::NamedTensor& tensor : local_state_) Fill({.y = tensor.tensor}, stream_);
  generator_->Initialize(options_.seed, stream_);
  discriminator_->Initialize(options_.seed, stream_);
  optimizer_->Start(stream_);
  Convert({.x = generator_->weights(), .y = ema_}, stream_);
  if (average_) Convert({.x = generator_->weights(), .y = average_}, stream_);
  kernels::WaitForDevice(stream_);
  step_ = updates_ = oracle_calls_ = dropped_in_a_row_ = 0;
}

void GanTrainer::DrawInputs(const data::SampleSource& source) {
  kernels::WaitForDevice(stream_);
  source.FillBatch(
      {.seed = options_.seed, .step = oracle_calls_, .rank = options_.rank, .world_size = options_.world_size}, real_);
  const int64_t first = options_.rank * batch();
  FillLatents(options_.seed, oracle_calls_, 0, first, latents_, stream_);
  if (!shares_) return;
  const kernels::PhiloxKey key = {
      .seed = options_.seed, .step = static_cast<uint32_t>(oracle_calls_), .purpose = kernels::kRandomPenalty};
  for (int64_t i = 0; i < batch(); ++i) {
    shares_.as<float>()[i] = kernels::ToUniform(RandomWord(key, static_cast<uint64_t>(first + i)));
  }
}

absl::Status GanTrainer::AskOracle(const data::SampleSource& source, GanStepResult* result, double* term_sum) {
  using model::GradientMode;
  const spec::QodaGanOptions& gan = options_.gan;
  const auto each = 1.0f / static_cast<float>(batch());
  DrawInputs(source);
  if (exchange_ != nullptr) exchange_->Begin(oracle_calls_, 1.0f / static_cast<float>(options_.world_size));

  const TensorView& generated = generator_->Forward(latents_, stream_);
  Convert({.x = discriminator_->Forward(real_, stream_), .y = real_scores_}, stream_);
  Fill({.y = score_gradient_, .value = -each}, stream_);
  discriminator_->Backward({.dy = score_gradient_}, stream_);
  if (gan.gp_lambda > 0) {
    Interpolate({.a = shares_, .x = real_, .y = generated, .out = interpolated_}, stream_);
    discriminator_->GradientPenalty({.xhat = interpolated_, .lambda = static_cast<float>(gan.gp_lambda)}, stream_);
  }
  Convert({.x = discriminator_->Forward(generated, stream_), .y = generated_scores_}, stream_);
  Fill({.y = score_gradient_, .value = each}, stream_);
  discriminator_->Backward({.dy = score_gradient_,
                            .dx = sample_gradient_,
                            .mode = GradientMode::kAccumulate,
                            .on_layer_ready = exchange_ != nullptr ? &on_discriminator_layer_ : nullptr},
                           stream_);
  Scale({.x = sample_gradient_, .y = sample_gradient_, .scale = -1}, stream_);
  generator_->Backward(
      {.dy = sample_gradient_, .on_layer_ready = exchange_ != nullptr ? &on_generator_layer_ : nullptr}, stream_);
  if (exchange_ != nullptr) TY_RETURN_IF_ERROR(exchange_->Wait());
  TY_RETURN_IF_ERROR(stream_.Synchronize());
  ++oracle_calls_;
  ++result->exchanges;

  const std::vector<TensorView>& own = exchange_ != nullptr ? exchange_->contributions() : own_gradients_;
  double sums[4] = {Mean(real_scores_), Mean(generated_scores_), gan.gp_lambda > 0 ? discriminator_->LastPenalty() : 0,
                    optimizer_->needs_contributions() ? optimizer_->OwnTerm(own, stream_) : 0};
  if (rank_sums_ != nullptr) TY_RETURN_IF_ERROR(rank_sums_->Sum(sums, 4));
  const double ranks = options_.world_size;
  *term_sum = sums[3];
  result->gradient_penalty = sums[2] / ranks;
  result->loss_d = (sums[1] - sums[0]) / ranks + gan.gp_lambda * result->gradient_penalty;
  result->loss_g = -sums[1] / ranks;
  GlobalNorm({.tensors = flat_gradients_, .norm = norm_, .workspace = norm_workspace_}, stream_);
  TY_RETURN_IF_ERROR(stream_.Synchronize());
  result->gradient_norm = static_cast<double>(*norm_.as<float>());
  return absl::OkStatus();
}

absl::StatusOr<GanStepResult> GanTrainer::Step(const data::SampleSource& source) {
  const spec::QodaGanOptions& gan = options_.gan;
  const int calls = optimizer_->calls_per_update();
  GanStepResult result;
  for (int call = 0; call < calls; ++call) {
    double term_sum = 0;
    TY_RETURN_IF_ERROR(AskOracle(source, &result, &term_sum));
    result.updated = std::isfinite(result.loss_d) && std::isfinite(result.loss_g) &&
                     std::isfinite(result.gradient_norm) && std::isfinite(term_sum);
    if (!result.updated) {
      TY_RETURN_IF_ERROR(CheckFinite(result));
      optimizer_->Abandon(call, stream_);
      break;
    }
    // The uniform average is of the points where the oracle was asked.
    if (average_ && call + 1 == calls) {
      MovingAverage({.x = generator_->weights(), .average = average_, .rate = 1.0f / static_cast<float>(updates_ + 1)},
                    stream_);
    }
    const std::vector<TensorView>& own = exchange_ != nullptr ? exchange_->contributions() : own_gradients_;
    optimizer_->Apply({.call = call,
                       .update = updates_ + 1,
                       .term_sum = term_sum,
                       .ranks = options_.world_size,
                       .contributions = &own},
                      stream_);
    if (gan.gp_lambda == 0) {
      ClipWeights({.weight = discriminator_->weights(), .limit = static_cast<float>(gan.clip)}, stream_);
    }
  }
  if (result.updated) {
    dropped_in_a_row_ = 0;
    ++updates_;
    MovingAverage({.x = generator_->weights(), .average = ema_, .rate = static_cast<float>(1.0 - gan.ema)}, stream_);
  }
  ++step_;
  TY_RETURN_IF_ERROR(stream_.Synchronize());
  return result;
}

absl::Status GanTrainer::CheckFinite(const GanStepResult& result) {
  const std::string what = absl::StrCat("step ", step_ + 1, ": loss_d ", result.loss_d, ", loss_g ", result.loss_g,
                                        ", gradient norm ", result.gradient_norm, ": not finite");
  if (options_.gan.nan_policy == spec::NanPolicy::kFail) {
    return absl::FailedPreconditionError(absl::StrCat(what, " (qoda_gan.nan_policy is fail)"));
  }
  if (++dropped_in_a_row_ >= kMaxDroppedGanUpdates) {
    return absl::FailedPreconditionError(absl::StrCat(what, ", as in ", dropped_in_a_row_ - 1, " steps before it"));
  }
  return absl::OkStatus();
}

TensorView GanTrainer::generator_weights(spec::GeneratorWeights which) const {
  switch (which) {
    case spec::GeneratorWeights::kRaw:
      return generator_->weights();
    case spec::GeneratorWeights::kEma:
      return ema_;
    case spec::GeneratorWeights::kAverage:
      return average_;
  }
  return generator_->weights();
}

std::map<std::string, std::string> GanTrainer::StateTexts() const {
  std::map<std::string, std::string> texts = {
      {"trainer", absl::StrCat(step_, " ", updates_, " ", oracle_calls_, " ", dropped_in_a_row_)}};
  if (!optimizer_->StateText().empty()) texts["optimizer"] = optimizer_->StateText();
  if (exchange_state_ != nullptr) texts["exchange"] = exchange_state_->Text();
  return texts;
}

absl::Status GanTrainer::RestoreState(const std::function<absl::StatusOr<std::string>(const std::string& name)>& read) {
  TY_ASSIGN_OR_RETURN(const std::string counts, read("trainer"));
  std::vector<int64_t> numbers;
  for (absl::string_view part : absl::StrSplit(counts, ' ')) {
    numbers.push_back(-1);
    if (!absl::SimpleAtoi(part, &numbers.back())) numbers.back() = -1;
  }
  if (numbers.size() != 4 || *std::min_element(numbers.begin(), numbers.end()) < 0) {
    return absl::DataLossError(absl::StrCat("GAN trainer state \"", counts, "\" is not four counts"));
  }
  if (!optimizer_->StateText().empty()) {
    TY_ASSIGN_OR_RETURN(const std::string text, read("optimizer"));
    TY_RETURN_IF_ERROR(optimizer_->RestoreState(text));
  }
  if (exchange_state_ != nullptr) {
    TY_ASSIGN_OR_RETURN(const std::string text, read("exchange"));
    TY_RETURN_IF_ERROR(exchange_state_->RestoreText(text));
  }
  step_ = numbers[0];
  updates_ = numbers[1];
  oracle_calls_ = numbers[2];
  dropped_in_a_row_ = numbers[3];
  return absl::OkStatus();
}

}  // namespace trainyard::train
