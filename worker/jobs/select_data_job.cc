#include "worker/jobs/select_data_job.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/comm/communicator.h"
#include "worker/data/permutation.h"
#include "worker/data/sample_loader.h"
#include "worker/influence/gradient_features.h"
#include "worker/influence/kernel_regression.h"
#include "worker/influence/sample_weights.h"
#include "worker/influence/selection_pool.h"
#include "worker/influence/selection_rules.h"
#include "worker/jobs/pretrain_setup.h"
#include "worker/model/hugging_face.h"
#include "worker/model/tangent_network.h"
#include "worker/train/schedule.h"
#include "worker/train/trainer.h"

namespace trainyard::jobs {
namespace {

using influence::FeatureKind;
using influence::Sample;
using influence::Selected;
using kernels::TensorView;
using spec::SelectionMethod;

enum Stage { kWarmup, kEmbed, kLandmarkGradients, kTargetGradients, kSolve, kScore, kSelect, kWeigh, kStages };
static_assert(kStages == spec::kSelectionStages);
constexpr const char* kStageNames[] = {"warmup", "embed", "landmarks", "targets", "solve", "score", "select", "weigh"};

// Samples that go through the blocks together, and between two looks at the stop flag.
constexpr int64_t kBatch = 32;
constexpr double kHeldOut = 0.05;
constexpr int64_t kFewestForHeldOut = 20;
// Recipe of the warm-up (influence-distillation.md 2.9).
constexpr double kWarmupFraction = 0.03;
constexpr double kBeta2 = 0.999;

// A checkpoint has no f64; the numbers' bytes do.
template <typename T>
TensorView Bytes(std::vector<T>& values) {
  return {values.data(), kernels::DType::kU8, {static_cast<int64_t>(values.size() * sizeof(T))}};
}

// The warm-up's rows: chosen samples of the pool in epochs, all with the same weight.
class WarmupRows final : public data::BatchSource {
 public:
  WarmupRows(std::vector<Sample> samples, int64_t length, uint64_t seed)
      : samples_(std::move(samples)), length_(length), seed_(seed) {}

  absl::Status NextBatch(const data::BatchViews& batch) override {
    const auto count = static_cast<int64_t>(samples_.size());
    for (int64_t row = 0; row < batch.tokens.size() / length_; ++row) {
      const data::Permutation order(count, seed_, static_cast<uint32_t>(position_.epoch));
      const Sample& sample = samples_[static_cast<size_t>(order(position_.next_sample))];
      const int64_t labels = std::min(static_cast<int64_t>(sample.tokens.size()), length_ + 1) - sample.label_begin;
      data::WriteSampleRow(sample.tokens, sample.label_begin,
                           static_cast<double>(length_) / static_cast<double>(labels),
                           {.tokens = batch.tokens.as<int32_t>() + row * length_,
                            .targets = batch.targets.as<int32_t>() + row * length_,
                            .weights = batch.weights.as<float>() + row * length_,
                            .length = length_});
      if (++position_.next_sample == count) position_ = {position_.epoch + 1, 0};
    }
    return absl::OkStatus();
  }
  absl::StatusOr<int64_t> ValidationBatch(int64_t /*first*/, const data::BatchViews& /*batch*/) const override {
    return 0;
  }
  bool is_weighted() const override { return true; }
  data::LoaderPosition position() const override { return position_; }
  absl::Status Restore(const data::LoaderPosition& position) override {
    position_ = position;
    return absl::OkStatus();
  }
  int64_t validation_rows() const override { return 0; }
  int32_t end_of_text_id() const override { return -1; }
  std::string Fingerprint() const override { return ""; }

 private:
  const std::vector<Sample> samples_;
  const int64_t length_;
  const uint64_t seed_;
  data::LoaderPosition position_;
};

double Dot(const float* a, const float* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

class SelectDataJob final : public Job {
 public:
  explicit SelectDataJob(const spec::JobOptions& options)
      : options_(options), select_(std::get<spec::SelectDataOptions>(options.kind)) {}

  absl::Status Prepare(JobContext& context) override;
  std::map<std::string, int64_t> MemoryPlan() const override;
  absl::Status Initialize() override {
    stage_ = 0;
    numbers_.clear();
    return InitializeTrainer();
  }
  absl::Status Restore(ckpt::CheckpointReader& reader) override;
  absl::Status Save(ckpt::CheckpointWriter& writer) override;
  int64_t step() const override { return stage_; }
  absl::StatusOr<UnitResult> RunUnit() override;
  absl::StatusOr<v1::JobResult> Finish() override;

 private:
  // ---- What the method has ----
  bool uses_gradients() const {
    return select_.method == SelectionMethod::kInfluence || select_.method == SelectionMethod::kExact ||
           select_.method == SelectionMethod::kLess;
  }
  bool uses_embeddings() const {
    return select_.method == SelectionMethod::kInfluence || select_.method == SelectionMethod::kRdsPlus;
  }
  bool scores() const { return select_.method != SelectionMethod::kRandom && select_.method != SelectionMethod::kFull; }
  bool warms_up() const { return scores() && select_.warmup.fraction > 0 && select_.warmup.epochs > 0; }
  // Of landmarks and pool samples. With SGD every element has the same factor, 1.
  FeatureKind pool_kind() const {
    const spec::SelectionScale scale = select_.gradients.optimizer_scale.value_or(
        warms_up() ? spec::SelectionScale::kAdam : spec::SelectionScale::kNone);
    return scale == spec::SelectionScale::kAdam ? FeatureKind::kScaled : FeatureKind::kPlain;
  }
  bool has_landmarks() const { return select_.method == SelectionMethod::kInfluence; }

  struct StateTensor {
    std::string name;
    TensorView bytes;
    bool is_local = false;
  };
  std::vector<StateTensor> StateTensors();
  absl::Status CheckOptions();
  absl::Status PrepareModel();
  absl::Status InitializeTrainer();
  void Allocate();
  spec::TrainingOptions WarmupTraining() const;

  absl::Status WarmUp(UnitResult* unit);
  absl::Status LessScores(double share);
  absl::Status Embed(UnitResult* unit);
  absl::Status EmbedRange(const influence::SelectionPool& pool, const std::vector<int64_t>& own, float* out);
  absl::Status LandmarkGradients(UnitResult* unit);
  absl::Status TargetGradients();
  absl::Status GatherTargets();
  absl::Status Solve(UnitResult* unit);
  absl::Status Score(UnitResult* unit);
  absl::Status Select(UnitResult* unit);
  absl::Status Weigh(UnitResult* unit);
  absl::StatusOr<std::function<void(const std::vector<double>&, std::vector<double>*)>> Curvature();
  void ScoreAgainstTargets(const float* feature, double norm, double* scores) const;

  // ---- Ranks ----
  int64_t rank() const { return context_->place().rank; }
  int64_t ranks() const { return context_->place().world_size; }
  // Number p of `count` things belongs to rank p mod ranks.
  std::vector<int64_t> Own(int64_t count) const {
    std::vector<int64_t> own;
    for (int64_t i = rank(); i < count; i += ranks()) own.push_back(i);
    return own;
  }
  // Rows of `width` numbers of each rank's things, in the things' order.
  template <typename T>
  absl::StatusOr<std::vector<T>> Gather(const std::vector<T>& own, int64_t count, int64_t width);
  // Calls body(place in own) for all, all ranks looking at the stop flag alike. Cancelled if asked to stop.
  template <typename Body>
  absl::Status ForOwn(int64_t count, const Body& body);
  absl::Status StopIfAsked() {
    TY_ASSIGN_OR_RETURN(const bool stops, context_->AgreeToStop());
    return stops ? absl::CancelledError("asked to stop") : absl::OkStatus();
  }

  kernels::Stream& stream() { return trainer_->stream(); }
  int64_t columns() const { return target_->size() + 1; }  // the last: un-normalised, mean over the targets
  nlohmann::ordered_json Report() const;

  const spec::JobOptions options_;
  const spec::SelectDataOptions& select_;
  JobContext* context_ = nullptr;
  std::unique_ptr<influence::SelectionPool> pool_, target_;
  std::string weights_directory_;
  std::unique_ptr<train::Trainer> trainer_;
  std::unique_ptr<influence::GradientFeatures> features_;
  std::unique_ptr<model::TangentNetwork<float>> tangents_;
  std::unique_ptr<kernels::RandomProjection> embedding_projection_;
  int64_t embedding_width_ = 0;
  std::vector<int64_t> warmup_samples_;

  // ---- State ----
  int64_t stage_ = 0;
  std::map<std::string, double> numbers_;  // results by name
  std::vector<float> embeddings_;          // (own pool samples, embedding_width_)
  std::vector<int64_t> landmarks_;         // pool samples, in the order drawn
  std::vector<float> landmark_features_;   // (own landmarks, feature size)
  std::vector<double> landmark_norms_;     // of own landmarks
  std::vector<float> target_features_;     // (targets, feature size), of all
  std::vector<double> target_norms_;
  std::vector<double> coefficients_;  // (landmarks, columns)
  std::vector<double> scores_;        // (own pool samples, columns)
  std::vector<Selected> selected_;    // room for all that may be selected
  std::vector<double> weights_;       // of selected_
};

absl::Status SelectDataJob::CheckOptions() {
  const int64_t most = pool_->size();
  if (select_.method != SelectionMethod::kFull && select_.count > most) {
    return absl::InvalidArgumentError(absl::StrCat("select_data.count: ", select_.count, " is more than the ", most,
                                                   " samples of the pool that have labels (", pool_->unlabelled_count(),
                                                   " have none)"));
  }
  if (select_.rule == spec::SelectionRule::kWeights && !scores()) {
    return absl::InvalidArgumentError("select_data.rule: weights needs a method that scores samples");
  }
  if (select_.gradients.optimizer_scale == spec::SelectionScale::kAdam && !warms_up() && uses_gradients()) {
    return absl::InvalidArgumentError(
        "select_data.gradients.optimizer_scale: adam needs a warm-up, whose moments it is");
  }
  const bool is_second_order = select_.rule == spec::SelectionRule::kWeights && select_.weights.second_order;
  if (is_second_order && !has_landmarks()) {
    return absl::InvalidArgumentError("select_data.weights.second_order: only with method influence");
  }
  if (is_second_order && options_.model.dtype != spec::FloatType::kFp32) {
    return absl::InvalidArgumentError("select_data.weights.second_order: finite differences need model.dtype fp32");
  }
  return absl::OkStatus();
}

spec::TrainingOptions SelectDataJob::WarmupTraining() const {
  spec::TrainingOptions training = options_.training;
  const auto samples = static_cast<int64_t>(warmup_samples_.size());
  const int64_t batch = std::clamp<int64_t>(samples, 1, select_.warmup.batch);
  // The largest divisor that is at most 8: rows of one pass, which memory must hold.
  int64_t rows = std::min<int64_t>(batch, 8);
  while (batch % rows != 0) --rows;
  training.micro_batch = static_cast<int32_t>(rows);
  training.accumulation = static_cast<int32_t>(batch / rows);
  training.steps = std::max<int64_t>(1, (samples * select_.warmup.epochs + batch - 1) / batch);
  spec::AdamWOptions adam;
  adam.learning_rate = select_.warmup.learning_rate;
  adam.beta2 = kBeta2;
  adam.weight_decay = 0;
  training.optimizer = adam;
  training.schedule = {.shape = spec::ScheduleShape::kLinear,
                       .warmup_steps = static_cast<int64_t>(kWarmupFraction * static_cast<double>(training.steps)),
                       .final_fraction = 0};
  training.nan_policy = spec::NanPolicy::kFail;
  return training;
}

absl::Status SelectDataJob::Prepare(JobContext& context) {
  context_ = &context;
  const JobPlace& place = context.place();
  spec::JobOptions training = options_;
  training.data.samples = select_.pool;
  training.data.path.clear();
  training.data.sequence_length = select_.sequence_length;
  // The shape of the model tells the vocabulary; the trainer's steps follow from the pool.
  TY_ASSIGN_OR_RETURN(PretrainSetup setup, SetUpPretrain(training, place.data_root, 0, 1));
  const model::ModelConfig& config = setup.trainer.config;
  const auto open = [&](const std::string& path, const char* field) {
    return influence::SelectionPool::Open(JoinPath(place.data_root, path), field, select_.sequence_length,
                                          config.vocab_size);
  };
  TY_ASSIGN_OR_RETURN(influence::SelectionPool pool, open(select_.pool, "select_data.pool"));
  TY_ASSIGN_OR_RETURN(influence::SelectionPool target, open(select_.target, "select_data.target"));
  pool_ = std::make_unique<influence::SelectionPool>(std::move(pool));
  target_ = std::make_unique<influence::SelectionPool>(std::move(target));
  if (pool_->set().info().tokenizer_digest != target_->set().info().tokenizer_digest) {
    return absl::InvalidArgumentError("select_data.target: it was made with another tokenizer than the pool");
  }
  TY_RETURN_IF_ERROR(CheckOptions());
  if (!select_.leak_test) TY_RETURN_IF_ERROR(pool_->CheckDisjoint(*target_));

  if (warms_up()) {
    const auto wanted =
        static_cast<int64_t>(std::llround(select_.warmup.fraction * static_cast<double>(pool_->size())));
    const data::Permutation order(pool_->size(), options_.seed.value_or(0), 0);
    for (int64_t i = 0; i < std::clamp<int64_t>(wanted, 1, pool_->size()); ++i) warmup_samples_.push_back(order(i));
  }
  setup.trainer.training = WarmupTraining();
  weights_directory_ = std::move(setup.weights_directory);
  TY_ASSIGN_OR_RETURN(trainer_, train::Trainer::Create(setup.trainer));
  TY_RETURN_IF_ERROR(PrepareModel());
  Allocate();
  return absl::OkStatus();
}

absl::Status SelectDataJob::PrepareModel() {
  const train::TrainerOptions& trained = trainer_->options();
  if (uses_gradients()) {
    influence::GradientFeatureOptions features;
    features.config = trained.config;
    features.dtype = trained.dtype;
    features.sequence_length = select_.sequence_length;
    features.threads = trained.threads;
    features.gradients = select_.gradients;
    features.seed = select_.embedding.seed;
    TY_ASSIGN_OR_RETURN(
        features_, influence::GradientFeatures::Create(features, &trainer_->weights(), &trainer_->gradients().tensors));
  }
  if (!uses_embeddings()) return absl::OkStatus();
  const bool is_rds = select_.method == SelectionMethod::kRdsPlus;
  model::TangentOptions tangents;
  tangents.blocks = is_rds ? trained.config.layers : std::min<int64_t>(select_.embedding.blocks, trained.config.layers);
  tangents.tangents = is_rds ? 0 : select_.embedding.tangents;
  tangents.seed = select_.embedding.seed;
  tangents.max_length = select_.sequence_length;
  std::vector<const float*> weights;
  for (const TensorView& leading : trainer_->leading_weights()) weights.push_back(leading.as<float>());
  tangents_ = std::make_unique<model::TangentNetwork<float>>(trained.config, tangents, std::move(weights));
  embedding_width_ = trained.config.hidden_size;
  if (is_rds) return absl::OkStatus();
  const int64_t raw = tangents.tangents * trained.config.hidden_size;
  // A projection that would not make the vector shorter is left out.
  const bool projects = select_.embedding.projection_dim < raw;
  embedding_projection_ = std::make_unique<kernels::RandomProjection>(
      projects ? kernels::RandomProjection::Kind::kHadamard : kernels::RandomProjection::Kind::kNone, raw,
      select_.embedding.projection_dim, select_.embedding.seed);
  embedding_width_ = embedding_projection_->outputs();
  return absl::OkStatus();
}

void SelectDataJob::Allocate() {
  const auto size = [](int64_t a, int64_t b) { return static_cast<size_t>(a * b); };
  const auto own = static_cast<int64_t>(Own(pool_->size()).size());
  const int64_t feature = features_ ? features_->feature_size() : embedding_width_;
  if (uses_embeddings()) embeddings_.resize(size(own, embedding_width_));
  if (has_landmarks()) {
    const int64_t count = std::min<int64_t>(select_.landmarks.count, pool_->size());
    landmarks_.resize(static_cast<size_t>(count));
    landmark_norms_.resize(Own(count).size());
    landmark_features_.resize(size(static_cast<int64_t>(landmark_norms_.size()), feature));
    coefficients_.resize(size(count, columns()));
  }
  if (scores()) {
    target_features_.resize(size(target_->size(), feature));
    target_norms_.resize(static_cast<size_t>(target_->size()));
    scores_.resize(size(own, columns()));
  }
  const bool may_take_all = select_.method == SelectionMethod::kFull || select_.rule == spec::SelectionRule::kWeights;
  selected_.resize(static_cast<size_t>(may_take_all ? pool_->size() : select_.count));
  weights_.resize(selected_.size());
}

std::map<std::string, int64_t> SelectDataJob::MemoryPlan() const {
  std::map<std::string, int64_t> plan = trainer_->memory_plan();
  const auto bytes = [](const auto& values) { return static_cast<int64_t>(values.size() * sizeof(values[0])); };
  if (features_) plan["features"] = features_->memory_bytes();
  plan["embeddings"] = bytes(embeddings_);
  plan["landmarks"] = bytes(landmark_features_) + bytes(coefficients_);
  plan["targets"] = bytes(target_features_);
  plan["scores"] = bytes(scores_) + bytes(selected_) + bytes(weights_);
  return plan;
}

absl::Status SelectDataJob::InitializeTrainer() {
  trainer_->Initialize();
  if (weights_directory_.empty()) return absl::OkStatus();
  TY_RETURN_IF_ERROR(model::ImportWeights(weights_directory_, trainer_->options().config, trainer_->leading_weights(),
                                          trainer_->stream()));
  trainer_->RoundWeights();
  return absl::OkStatus();
}

absl::Status SelectDataJob::Save(ckpt::CheckpointWriter& writer) {
  for (const optim::NamedTensor& tensor : trainer_->state()) writer.AddTensor(tensor.name, tensor.tensor);
  writer.AddText("trainer", trainer_->StateText());
  writer.AddText("stage", absl::StrCat(stage_));
  std::string numbers;
  for (const auto& [name, value] : numbers_) absl::StrAppend(&numbers, name, absl::StrFormat("=%.17g\n", value));
  writer.AddLocalText("numbers", numbers);  // with this rank's seconds
  TY_ASSIGN_OR_RETURN(const std::string pool, pool_->Fingerprint());
  TY_ASSIGN_OR_RETURN(const std::string target, target_->Fingerprint());
  writer.AddText("pool", pool);
  writer.AddText("target", target);
  for (const StateTensor& state : StateTensors()) {
    if (state.is_local) {
      writer.AddLocalTensor(state.name, state.bytes);
    } else {
      writer.AddTensor(state.name, state.bytes);
    }
  }
  return absl::OkStatus();
}

absl::Status SelectDataJob::Restore(ckpt::CheckpointReader& reader) {
  const auto check = [&](const char* name, const influence::SelectionPool& pool) -> absl::Status {
    TY_ASSIGN_OR_RETURN(const std::string saved, reader.Text(name));
    TY_ASSIGN_OR_RETURN(const std::string now, pool.Fingerprint());
    if (saved == now) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat("select_data.", name, ": ", pool.set().directory(),
                                                      " is not what the checkpoint of stage ", reader.step(),
                                                      " was made with"));
  };
  TY_RETURN_IF_ERROR(check("pool", *pool_));
  TY_RETURN_IF_ERROR(check("target", *target_));
  for (const optim::NamedTensor& tensor : trainer_->state()) {
    TY_RETURN_IF_ERROR(reader.ReadTensor(tensor.name, tensor.tensor));
  }
  TY_ASSIGN_OR_RETURN(const std::string trainer, reader.Text("trainer"));
  TY_RETURN_IF_ERROR(trainer_->RestoreState(trainer));
  TY_ASSIGN_OR_RETURN(const std::string stage, reader.Text("stage"));
  if (!absl::SimpleAtoi(stage, &stage_) || stage_ < 0 || stage_ > kStages) {
    return absl::DataLossError(absl::StrCat("stage \"", stage, "\" not in [0, ", int{kStages}, "]"));
  }
  TY_ASSIGN_OR_RETURN(const std::string numbers, reader.LocalText("numbers"));
  numbers_.clear();
  for (absl::string_view line : absl::StrSplit(numbers, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> parts = absl::StrSplit(line, '=');
    double value = 0;
    if (parts.size() != 2 || !absl::SimpleAtod(parts[1], &value)) {
      return absl::DataLossError(absl::StrCat("numbers: \"", line, "\" is not a name and a number"));
    }
    numbers_[parts[0]] = value;
  }
  for (const StateTensor& state : StateTensors()) {
    TY_RETURN_IF_ERROR(state.is_local ? reader.ReadLocalTensor(state.name, state.bytes)
                                      : reader.ReadTensor(state.name, state.bytes));
  }
  return absl::OkStatus();
}

// What stages have left for later ones. Which there are follows from the method and the pool.
std::vector<SelectDataJob::StateTensor> SelectDataJob::StateTensors() {
  std::vector<StateTensor> all = {{"embeddings", Bytes(embeddings_), true},
                                  {"landmarks", Bytes(landmarks_), false},
                                  {"landmark_features", Bytes(landmark_features_), true},
                                  {"landmark_norms", Bytes(landmark_norms_), true},
                                  {"target_features", Bytes(target_features_), false},
                                  {"target_norms", Bytes(target_norms_), false},
                                  {"coefficients", Bytes(coefficients_), false},
                                  {"scores", Bytes(scores_), true},
                                  {"selected", Bytes(selected_), false},
                                  {"weights_of_selected", Bytes(weights_), false}};
  all.erase(std::remove_if(all.begin(), all.end(), [](const StateTensor& state) { return state.bytes.size() == 0; }),
            all.end());
  return all;
}

template <typename T>
absl::StatusOr<std::vector<T>> SelectDataJob::Gather(const std::vector<T>& own, int64_t count, int64_t width) {
  if (ranks() == 1) return own;
  std::vector<int64_t> bytes, first;
  int64_t total = 0;
  for (int64_t r = 0; r < ranks(); ++r) {
    const int64_t things = count > r ? (count - r + ranks() - 1) / ranks() : 0;
    first.push_back(total);
    bytes.push_back(things * width * static_cast<int64_t>(sizeof(T)));
    total += things * width;
  }
  std::vector<T> by_rank(static_cast<size_t>(total)), ordered(by_rank.size());
  TY_RETURN_IF_ERROR(context_->communicator()->AllGatherBytes(own.data(), bytes, by_rank.data()));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t from = first[static_cast<size_t>(i % ranks())] + i / ranks() * width;
    std::copy_n(by_rank.begin() + from, width, ordered.begin() + i * width);
  }
  return ordered;
}

template <typename Body>
absl::Status SelectDataJob::ForOwn(int64_t count, const Body& body) {
  const int64_t most = (count + ranks() - 1) / ranks();  // of any rank
  const auto own = static_cast<int64_t>(Own(count).size());
  for (int64_t first = 0; first < most; first += kBatch) {
    TY_RETURN_IF_ERROR(StopIfAsked());
    const int64_t end = std::min(first + kBatch, own);
    if (first < end) TY_RETURN_IF_ERROR(body(first, end));
  }
  return absl::OkStatus();
}

absl::StatusOr<UnitResult> SelectDataJob::RunUnit() {
  const absl::Duration begin = RealClock()->Monotonic();
  UnitResult unit;
  absl::Status status;
  switch (stage_) {
    case kWarmup:
      status = WarmUp(&unit);
      break;
    case kEmbed:
      status = Embed(&unit);
      break;
    case kLandmarkGradients:
      status = LandmarkGradients(&unit);
      break;
    case kTargetGradients:
      status = TargetGradients();
      break;
    case kSolve:
      status = Solve(&unit);
      break;
    case kScore:
      status = Score(&unit);
      break;
    case kSelect:
      status = Select(&unit);
      break;
    default:
      status = Weigh(&unit);
  }
  TY_RETURN_IF_ERROR(status);
  const double seconds = absl::ToDoubleSeconds(RealClock()->Monotonic() - begin);
  numbers_[absl::StrCat("seconds_", kStageNames[stage_])] = seconds;
  unit.metrics["stage"] = static_cast<double>(stage_);
  unit.metrics["stage_seconds"] = seconds;
  if (const auto samples = unit.metrics.find("samples"); samples != unit.metrics.end()) {
    unit.metrics["samples_per_second"] = samples->second / seconds;
  }
  unit.step = ++stage_;
  unit.total_steps = kStages;
  unit.done = stage_ == kStages;
  return unit;
}

absl::Status SelectDataJob::WarmUp(UnitResult* unit) {
  if (!warms_up()) {
    return select_.method == SelectionMethod::kLess ? LessScores(1) : absl::OkStatus();
  }
  TY_RETURN_IF_ERROR(InitializeTrainer());  // what an attempt that was broken off has left
  std::vector<Sample> samples;
  for (const int64_t i : warmup_samples_) {
    TY_ASSIGN_OR_RETURN(Sample sample, pool_->At(i));
    samples.push_back(std::move(sample));
  }
  WarmupRows rows(std::move(samples), select_.sequence_length, options_.seed.value_or(0));
  const int64_t steps = trainer_->options().training.steps;
  // LESS takes its scores at the end of each epoch, weighted by the epoch's learning rates.
  const int64_t epochs = std::min<int64_t>(select_.warmup.epochs, steps);
  double epoch_rate = 0, all_rates = 0;
  for (int64_t step = 0; step < steps; ++step)
    all_rates += train::RateMultiplier(trainer_->options().training.schedule, step, steps);
  std::fill(scores_.begin(), scores_.end(), 0.0);
  absl::Status status;
  for (int64_t step = 0; step < steps && status.ok(); ++step) {
    status = StopIfAsked();
    if (!status.ok()) break;
    const absl::StatusOr<train::StepResult> result = trainer_->Step(rows);
    status = result.status();
    if (!status.ok()) break;
    unit->metrics["warmup_loss"] = result->loss;
    epoch_rate += result->learning_rate / select_.warmup.learning_rate;
    const bool ends_epoch = (step + 1) * epochs / steps != step * epochs / steps;
    if (select_.method == SelectionMethod::kLess && ends_epoch) {
      status = LessScores(epoch_rate / all_rates);
      epoch_rate = 0;
    }
  }
  // The state is again as before the unit.
  if (!status.ok()) TY_RETURN_IF_ERROR(InitializeTrainer());
  return status;
}

// The moments of the trainer, by parameter.
influence::OptimizerState StateOf(const train::Trainer& trainer) {
  influence::OptimizerState state;
  const spec::AdamWOptions& adam = std::get<spec::AdamWOptions>(trainer.options().training.optimizer);
  state.adam = {.beta1 = adam.beta1,
                .beta2 = adam.beta2,
                .epsilon = adam.epsilon,
                .weight_decay = adam.weight_decay,
                .steps = trainer.step()};
  std::map<std::string, TensorView> by_name;
  for (const optim::NamedTensor& tensor : trainer.state()) by_name[tensor.name] = tensor.tensor;
  for (const model::Parameter& parameter : trainer.parameters()) {
    state.m.push_back(by_name.at(absl::StrCat("adamw.m/", parameter.name)));
    state.v.push_back(by_name.at(absl::StrCat("adamw.v/", parameter.name)));
  }
  return state;
}

// Adds `share` times the cosines at the trainer's present state.
absl::Status SelectDataJob::LessScores(double share) {
  features_->SetOptimizerState(StateOf(*trainer_));
  TY_RETURN_IF_ERROR(GatherTargets());
  std::vector<float> feature(static_cast<size_t>(features_->feature_size()));
  std::vector<double> row(static_cast<size_t>(columns()));
  return ForOwn(pool_->size(), [&](int64_t first, int64_t end) -> absl::Status {
    for (int64_t j = first; j < end; ++j) {
      TY_ASSIGN_OR_RETURN(const Sample sample, pool_->At(rank() + j * ranks()));
      ScoreAgainstTargets(feature.data(), features_->Feature(sample, FeatureKind::kLess, feature.data(), stream()),
                          row.data());
      for (int64_t c = 0; c < columns(); ++c) {
        scores_[static_cast<size_t>(j * columns() + c)] += share * row[static_cast<size_t>(c)];
      }
    }
    return absl::OkStatus();
  });
}

// Cosines of a unit feature with each target, and the mean of the products of the un-normalised gradients, which is
// what the update model is about. A sample without a gradient is never selected.
void SelectDataJob::ScoreAgainstTargets(const float* feature, double norm, double* scores) const {
  const int64_t width = static_cast<int64_t>(target_features_.size()) / target_->size();
  double mean = 0;
  for (int64_t t = 0; t < target_->size(); ++t) {
    const double product = Dot(feature, target_features_.data() + t * width, width);
    scores[t] = norm > 0 ? product : -std::numeric_limits<double>::infinity();
    const bool has_norms = select_.method == SelectionMethod::kInfluence || select_.method == SelectionMethod::kExact;
    mean += has_norms ? product * norm * target_norms_[static_cast<size_t>(t)] : product;
  }
  scores[target_->size()] = mean / static_cast<double>(target_->size());
}

absl::Status SelectDataJob::EmbedRange(const influence::SelectionPool& pool, const std::vector<int64_t>& own,
                                       float* out) {
  const int64_t hidden = trainer_->options().config.hidden_size;
  std::vector<std::vector<int32_t>> sequences;
  for (const int64_t i : own) {
    TY_ASSIGN_OR_RETURN(Sample sample, pool.At(i));
    if (static_cast<int64_t>(sample.tokens.size()) > select_.sequence_length) {
      sample.tokens.resize(static_cast<size_t>(select_.sequence_length));
    }
    sequences.push_back(std::move(sample.tokens));
  }
  const std::vector<std::vector<float>> results = tangents_->Run(sequences, stream());
  std::vector<float> raw, scratch;
  for (size_t s = 0; s < results.size(); ++s) {
    const auto rows = static_cast<int64_t>(sequences[s].size());
    float* const embedding = out + static_cast<int64_t>(s) * embedding_width_;
    if (select_.method == SelectionMethod::kRdsPlus) {
      // Mean of the states with weights that grow with the position, normalised.
      std::vector<double> mean(static_cast<size_t>(hidden));
      double square = 0;
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t c = 0; c < hidden; ++c) {
          mean[static_cast<size_t>(c)] +=
              static_cast<double>(row + 1) * double{results[s][static_cast<size_t>(row * hidden + c)]};
        }
      }
      for (const double value : mean) square += value * value;
      const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
      for (int64_t c = 0; c < hidden; ++c) embedding[c] = static_cast<float>(mean[static_cast<size_t>(c)] * scale);
      continue;
    }
    raw.clear();
    for (int64_t k = 0; k < select_.embedding.tangents; ++k) {
      const float* const last = results[s].data() + ((1 + k) * rows + rows - 1) * hidden;
      raw.insert(raw.end(), last, last + hidden);
    }
    scratch.resize(static_cast<size_t>(embedding_projection_->scratch_size()));
    embedding_projection_->Apply(raw.data(), scratch.data(), embedding, stream());
  }
  return absl::OkStatus();
}

absl::Status SelectDataJob::Embed(UnitResult* unit) {
  if (!uses_embeddings()) return absl::OkStatus();
  unit->metrics["samples"] = static_cast<double>(pool_->size());
  return ForOwn(pool_->size(), [&](int64_t first, int64_t end) {
    std::vector<int64_t> own;
    for (int64_t j = first; j < end; ++j) own.push_back(rank() + j * ranks());
    return EmbedRange(*pool_, own, embeddings_.data() + first * embedding_width_);
  });
}

absl::Status SelectDataJob::LandmarkGradients(UnitResult* unit) {
  if (!has_landmarks()) return absl::OkStatus();
  const auto count = static_cast<int64_t>(landmarks_.size());
  if (select_.landmarks.strategy == spec::LandmarkStrategy::kUniform) {
    landmarks_ = influence::UniformLandmarks(pool_->size(), count, select_.landmarks.seed, warmup_samples_);
  } else {
    TY_ASSIGN_OR_RETURN(const std::vector<float> all, Gather(embeddings_, pool_->size(), embedding_width_));
    landmarks_ = influence::SpreadLandmarks(all, embedding_width_, count, select_.landmarks.seed);
  }
  features_->SetOptimizerState(StateOf(*trainer_));
  unit->metrics["samples"] = static_cast<double>(count);
  const int64_t width = features_->feature_size();
  return ForOwn(count, [&](int64_t first, int64_t end) -> absl::Status {
    for (int64_t j = first; j < end; ++j) {
      TY_ASSIGN_OR_RETURN(const Sample sample, pool_->At(landmarks_[static_cast<size_t>(rank() + j * ranks())]));
      landmark_norms_[static_cast<size_t>(j)] =
          features_->Feature(sample, pool_kind(), landmark_features_.data() + j * width, stream());
    }
    return absl::OkStatus();
  });
}

// The features of all targets, on all ranks.
absl::Status SelectDataJob::GatherTargets() {
  const std::vector<int64_t> own = Own(target_->size());
  const int64_t width = static_cast<int64_t>(target_features_.size()) / target_->size();
  std::vector<float> features(own.size() * static_cast<size_t>(width));
  std::vector<double> norms(own.size());
  TY_RETURN_IF_ERROR(ForOwn(target_->size(), [&](int64_t first, int64_t end) -> absl::Status {
    if (select_.method == SelectionMethod::kRdsPlus) {
      return EmbedRange(*target_, {own.begin() + first, own.begin() + end}, features.data() + first * width);
    }
    const FeatureKind kind = select_.method == SelectionMethod::kLess ? FeatureKind::kLessTarget : FeatureKind::kPlain;
    for (int64_t j = first; j < end; ++j) {
      TY_ASSIGN_OR_RETURN(const Sample sample, target_->At(own[static_cast<size_t>(j)]));
      norms[static_cast<size_t>(j)] = features_->Feature(sample, kind, features.data() + j * width, stream());
    }
    return absl::OkStatus();
  }));
  TY_ASSIGN_OR_RETURN(target_features_, Gather(features, target_->size(), width));
  TY_ASSIGN_OR_RETURN(target_norms_, Gather(norms, target_->size(), 1));
  return absl::OkStatus();
}

absl::Status SelectDataJob::TargetGradients() {
  // LESS has gone through the targets at each of its checkpoints.
  if (!scores() || select_.method == SelectionMethod::kLess) return absl::OkStatus();
  return GatherTargets();
}

absl::Status SelectDataJob::Solve(UnitResult* unit) {
  if (!has_landmarks()) return absl::OkStatus();
  const auto count = static_cast<int64_t>(landmarks_.size());
  const int64_t width = features_->feature_size();
  std::vector<double> own(Own(count).size() * static_cast<size_t>(columns()));
  int64_t empty = 0;
  for (size_t j = 0; j < landmark_norms_.size(); ++j) {
    double* const row = own.data() + static_cast<int64_t>(j) * columns();
    ScoreAgainstTargets(landmark_features_.data() + static_cast<int64_t>(j) * width, landmark_norms_[j], row);
    if (landmark_norms_[j] > 0) continue;
    std::fill_n(row, columns(), 0.0);  // no gradient, no influence
    ++empty;
  }
  TY_ASSIGN_OR_RETURN(const std::vector<double> values, Gather(own, count, columns()));
  TY_ASSIGN_OR_RETURN(const std::vector<int64_t> empties, Gather(std::vector<int64_t>{empty}, ranks(), 1));
  numbers_["empty_gradients"] = 0;
  for (const int64_t one : empties) numbers_["empty_gradients"] += static_cast<double>(one);
  TY_ASSIGN_OR_RETURN(const std::vector<float> all, Gather(embeddings_, pool_->size(), embedding_width_));
  std::vector<float> embedded;
  for (const int64_t i : landmarks_) {
    embedded.insert(embedded.end(), all.begin() + i * embedding_width_, all.begin() + (i + 1) * embedding_width_);
  }

  // One rank solves; its word is everybody's, errors too.
  std::string word;
  std::array<double, 3> found = {0, 0, 0};  // sigma, Spearman, R^2 of what was left out
  if (rank() == 0) {
    const auto kept = count < kFewestForHeldOut
                          ? count
                          : count - static_cast<int64_t>(std::llround(kHeldOut * static_cast<double>(count)));
    const auto fit = [&](int64_t landmarks) {
      return influence::KernelRegression::Fit(
          select_.propagation, {embedded.begin(), embedded.begin() + landmarks * embedding_width_}, embedding_width_,
          {values.begin(), values.begin() + landmarks * columns()}, columns());
    };
    const absl::StatusOr<influence::KernelRegression> whole = fit(count);
    if (!whole.ok()) word = std::string(whole.status().message());
    if (whole.ok()) {
      coefficients_ = whole->coefficients();
      found[0] = whole->sigma();
    }
    if (const absl::StatusOr<influence::KernelRegression> part = fit(kept); part.ok() && kept < count) {
      std::vector<double> predicted(static_cast<size_t>((count - kept) * columns())), actual_mean, predicted_mean;
      part->Predict(embedded.data() + kept * embedding_width_, count - kept, predicted.data(), stream());
      const auto mean = [&](const double* row) {
        double sum = 0;
        for (int64_t t = 0; t < target_->size(); ++t) sum += row[t];
        return sum / static_cast<double>(target_->size());
      };
      for (int64_t i = kept; i < count; ++i) {
        actual_mean.push_back(mean(values.data() + i * columns()));
        predicted_mean.push_back(mean(predicted.data() + (i - kept) * columns()));
      }
      found[1] = influence::SpearmanCorrelation(actual_mean, predicted_mean);
      found[2] = influence::Determination(actual_mean, predicted_mean);
    }
  }
  if (ranks() > 1) {
    comm::Communicator& communicator = *context_->communicator();
    TY_ASSIGN_OR_RETURN(word, comm::BroadcastString(communicator, word, 0));
    if (word.empty()) {
      TY_RETURN_IF_ERROR(
          communicator.Broadcast(coefficients_.data(), static_cast<int64_t>(coefficients_.size() * sizeof(double)), 0));
      TY_RETURN_IF_ERROR(communicator.Broadcast(found.data(), sizeof(found), 0));
    }
  }
  if (!word.empty()) return absl::FailedPreconditionError(word);
  numbers_["landmarks"] = static_cast<double>(count);
  for (size_t i = 0; i < found.size(); ++i) {
    const char* const name = i == 0 ? "sigma" : i == 1 ? "heldout_spearman" : "heldout_r2";
    unit->metrics[name] = numbers_[name] = found[i];
  }
  return absl::OkStatus();
}

absl::Status SelectDataJob::Score(UnitResult* unit) {
  if (!scores() || select_.method == SelectionMethod::kLess) return absl::OkStatus();
  unit->metrics["samples"] = static_cast<double>(pool_->size());
  if (has_landmarks()) {
    TY_ASSIGN_OR_RETURN(const std::vector<float> all, Gather(embeddings_, pool_->size(), embedding_width_));
    std::vector<float> embedded;
    for (const int64_t i : landmarks_) {
      embedded.insert(embedded.end(), all.begin() + i * embedding_width_, all.begin() + (i + 1) * embedding_width_);
    }
    const influence::KernelRegression fit = influence::KernelRegression::FromFit(
        select_.propagation.kernel, numbers_["sigma"], embedded, embedding_width_, coefficients_, columns());
    return ForOwn(pool_->size(), [&](int64_t first, int64_t end) {
      fit.Predict(embeddings_.data() + first * embedding_width_, end - first, scores_.data() + first * columns(),
                  stream());
      return absl::OkStatus();
    });
  }
  const bool is_exact = select_.method == SelectionMethod::kExact;
  if (is_exact) features_->SetOptimizerState(StateOf(*trainer_));
  std::vector<float> feature(is_exact ? static_cast<size_t>(features_->feature_size()) : 0);
  return ForOwn(pool_->size(), [&](int64_t first, int64_t end) -> absl::Status {
    for (int64_t j = first; j < end; ++j) {
      double* const row = scores_.data() + j * columns();
      if (!is_exact) {
        ScoreAgainstTargets(embeddings_.data() + j * embedding_width_, 1, row);
        continue;
      }
      TY_ASSIGN_OR_RETURN(const Sample sample, pool_->At(rank() + j * ranks()));
      ScoreAgainstTargets(feature.data(), features_->Feature(sample, pool_kind(), feature.data(), stream()), row);
    }
    return absl::OkStatus();
  });
}

absl::Status SelectDataJob::Select(UnitResult* unit) {
  const uint64_t seed = options_.seed.value_or(0);
  std::vector<Selected> chosen;
  if (!scores()) {
    const data::Permutation order(pool_->size(), seed, 1);
    const int64_t count = select_.method == SelectionMethod::kFull ? pool_->size() : select_.count;
    for (int64_t i = 0; i < count; ++i) chosen.push_back({order(i), 0, 0});
  } else {
    TY_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(scores_, pool_->size(), columns()));
    std::vector<double> by_target;
    for (int64_t i = 0; i < pool_->size(); ++i) {
      by_target.insert(by_target.end(), all.begin() + i * columns(), all.begin() + (i + 1) * columns() - 1);
    }
    const influence::ScoreTable table{by_target.data(), pool_->size(), target_->size()};
    switch (select_.rule) {
      case spec::SelectionRule::kRoundRobin:
        chosen = SelectRoundRobin(table, select_.count, seed);
        break;
      case spec::SelectionRule::kTopMax:
        chosen = SelectTopMax(table, select_.count);
        break;
      case spec::SelectionRule::kTopMean:
        chosen = SelectTopMean(table, select_.count);
        break;
      case spec::SelectionRule::kWeights:  // by what the weights are made from; the next stage says which stay
        for (int64_t i = 0; i < pool_->size(); ++i) {
          bool is_usable = true;
          for (int64_t c = 0; c < columns(); ++c) {
            is_usable = is_usable && std::isfinite(all[static_cast<size_t>(i * columns() + c)]);
          }
          if (is_usable) chosen.push_back({i, all[static_cast<size_t>((i + 1) * columns() - 1)], 0});
        }
        std::sort(chosen.begin(), chosen.end(), [](const Selected& a, const Selected& b) {
          return a.score != b.score ? a.score > b.score : a.sample < b.sample;
        });
        break;
    }
    if (chosen.empty()) return absl::FailedPreconditionError("no sample of the pool has a score that is finite");
  }
  std::copy(chosen.begin(), chosen.end(), selected_.begin());
  unit->metrics["selected"] = numbers_["selected"] = static_cast<double>(chosen.size());
  return absl::OkStatus();
}

// Q ~ C Q_L C^T with Q_L[i,j] = (1/N) u_i^T H u_j over the landmarks' scaled gradients u and the Hessian H of the mean
// target loss, from finite differences of gradients, in projected form; C carries a weight on a sample to the
// landmarks.
absl::StatusOr<std::function<void(const std::vector<double>&, std::vector<double>*)>> SelectDataJob::Curvature() {
  const auto count = static_cast<int64_t>(landmarks_.size());
  const int64_t width = features_->feature_size();
  const auto elements = static_cast<size_t>(features_->element_count());
  features_->SetOptimizerState(StateOf(*trainer_));
  std::vector<std::vector<float>> before;
  for (const TensorView& weight : trainer_->leading_weights()) {
    before.emplace_back(weight.as<float>(), weight.as<float>() + weight.size());
  }
  const auto put_back = [&] {
    for (size_t i = 0; i < before.size(); ++i) {
      std::copy(before[i].begin(), before[i].end(), trainer_->leading_weights()[i].as<float>());
    }
  };
  double weight_square = 0;
  for (const std::vector<float>& values : before) {
    for (const float value : values) weight_square += double{value} * double{value};
  }
  std::vector<float> u(elements), one(elements), difference(elements);
  const auto target_gradient = [&](const std::vector<float>& direction, double step, double factor) -> absl::Status {
    features_->MoveWeights(direction.data(), step);
    for (int64_t t = 0; t < target_->size(); ++t) {
      TY_ASSIGN_OR_RETURN(const Sample sample, target_->At(t));
      features_->Gradient(sample, one.data(), stream());
      for (size_t e = 0; e < elements; ++e) difference[e] += static_cast<float>(factor) * one[e];
    }
    put_back();
    return absl::OkStatus();
  };
  const std::vector<int64_t> own = Own(count);
  std::vector<float> own_u(own.size() * static_cast<size_t>(width)), own_hu(own_u.size());
  TY_RETURN_IF_ERROR(ForOwn(count, [&](int64_t first, int64_t end) -> absl::Status {
    for (int64_t j = first; j < end; ++j) {
      TY_ASSIGN_OR_RETURN(const Sample sample, pool_->At(landmarks_[static_cast<size_t>(own[static_cast<size_t>(j)])]));
      features_->Gradient(sample, u.data(), stream());
      features_->Scale(pool_kind(), u.data());
      const double norm = std::sqrt(Dot(u.data(), u.data(), static_cast<int64_t>(elements)));
      std::fill(difference.begin(), difference.end(), 0.0f);
      if (norm > 0) {
        // A thousandth of the weights' own norm: far above rounding, far below where the curvature changes.
        const double step = 1e-3 * std::sqrt(weight_square) / norm;
        const double factor = 1 / (2 * step * static_cast<double>(target_->size()));
        TY_RETURN_IF_ERROR(target_gradient(u, step, factor));
        TY_RETURN_IF_ERROR(target_gradient(u, -step, -factor));
      }
      features_->Project(u.data(), own_u.data() + j * width, stream());
      features_->Project(difference.data(), own_hu.data() + j * width, stream());
    }
    return absl::OkStatus();
  }));
  TY_ASSIGN_OR_RETURN(const std::vector<float> all_u, Gather(own_u, count, width));
  TY_ASSIGN_OR_RETURN(const std::vector<float> all_hu, Gather(own_hu, count, width));
  std::vector<double> q(static_cast<size_t>(count * count));
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const double value = (Dot(all_hu.data() + i * width, all_u.data() + j * width, width) +
                            Dot(all_hu.data() + j * width, all_u.data() + i * width, width)) /
                           2 / static_cast<double>(pool_->size());
      q[static_cast<size_t>(i * count + j)] = q[static_cast<size_t>(j * count + i)] = value;
    }
  }
  // C: what one at a landmark is worth at each sample.
  TY_ASSIGN_OR_RETURN(const std::vector<float> embeddings, Gather(embeddings_, pool_->size(), embedding_width_));
  std::vector<float> embedded;
  for (const int64_t i : landmarks_) {
    embedded.insert(embedded.end(), embeddings.begin() + i * embedding_width_,
                    embeddings.begin() + (i + 1) * embedding_width_);
  }
  std::vector<double> identity(static_cast<size_t>(count * count));
  for (int64_t i = 0; i < count; ++i) identity[static_cast<size_t>(i * count + i)] = 1;
  TY_ASSIGN_OR_RETURN(
      const influence::KernelRegression fit,
      influence::KernelRegression::Fit(select_.propagation, embedded, embedding_width_, std::move(identity), count));
  std::vector<double> c(static_cast<size_t>(pool_->size() * count));
  fit.Predict(embeddings.data(), pool_->size(), c.data(), stream());
  // Over the samples that are in the problem, in its order.
  std::vector<int64_t> rows;
  for (size_t i = 0; i < static_cast<size_t>(numbers_["selected"]); ++i) rows.push_back(selected_[i].sample);
  return [count, q = std::move(q), c = std::move(c), rows = std::move(rows)](const std::vector<double>& in,
                                                                             std::vector<double>* out) {
    std::vector<double> at_landmarks(static_cast<size_t>(count)), curved(at_landmarks.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      for (int64_t l = 0; l < count; ++l) {
        at_landmarks[static_cast<size_t>(l)] += in[i] * c[static_cast<size_t>(rows[i] * count + l)];
      }
    }
    for (int64_t l = 0; l < count; ++l) {
      for (int64_t k = 0; k < count; ++k) {
        curved[static_cast<size_t>(l)] += q[static_cast<size_t>(l * count + k)] * at_landmarks[static_cast<size_t>(k)];
      }
    }
    out->assign(rows.size(), 0);
    for (size_t i = 0; i < rows.size(); ++i) {
      for (int64_t l = 0; l < count; ++l) {
        (*out)[i] += c[static_cast<size_t>(rows[i] * count + l)] * curved[static_cast<size_t>(l)];
      }
    }
  };
}

absl::Status SelectDataJob::Weigh(UnitResult* unit) {
  auto count = static_cast<size_t>(numbers_["selected"]);
  std::fill(weights_.begin(), weights_.end(), 1.0);
  if (select_.rule == spec::SelectionRule::kWeights) {
    influence::WeightProblem problem;
    problem.rule = select_.weights.lambda_rule;
    problem.count = std::min<int64_t>(select_.count, static_cast<int64_t>(count));
    problem.lambda = select_.weights.lambda;
    problem.maximum = select_.weights.maximum;
    if (select_.weights.second_order) {
      // The mean of a linear decay.
      problem.learning_rate = select_.warmup.learning_rate / 2;
      TY_ASSIGN_OR_RETURN(problem.quadratic, Curvature());
    }
    std::vector<double> p;
    for (size_t i = 0; i < count; ++i) p.push_back(selected_[i].score);
    TY_ASSIGN_OR_RETURN(const influence::WeightSolution solution, SolveWeights(p, problem));
    numbers_["lambda"] = solution.lambda;
    // Those without a weight are not selected.
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i) {
      if (!(solution.weights[i] > 0)) continue;
      selected_[kept] = selected_[i];
      weights_[kept++] = solution.weights[i];
    }
    count = kept;
  }
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += weights_[i];
  for (size_t i = 0; i < count; ++i) weights_[i] *= static_cast<double>(count) / sum;
  const std::vector<double> used(weights_.begin(), weights_.begin() + static_cast<int64_t>(count));
  unit->metrics["effective_size"] = numbers_["effective_size"] = influence::EffectiveSize(used);
  unit->metrics["selected"] = numbers_["selected"] = static_cast<double>(count);
  return absl::OkStatus();
}

const char* NameOf(SelectionMethod method) {
  switch (method) {
    case SelectionMethod::kInfluence:
      return "influence";
    case SelectionMethod::kExact:
      return "exact";
    case SelectionMethod::kRdsPlus:
      return "rds_plus";
    case SelectionMethod::kLess:
      return "less";
    case SelectionMethod::kRandom:
      return "random";
    case SelectionMethod::kFull:
      break;
  }
  return "full";
}

nlohmann::ordered_json SelectDataJob::Report() const {
  std::map<std::string, std::pair<int64_t, int64_t>> sources;  // in the pool, selected
  std::map<std::string, double> weights;
  for (int64_t i = 0; i < pool_->size(); ++i) ++sources[pool_->record(i).source].first;
  const auto count = static_cast<size_t>(numbers_.at("selected"));
  for (size_t i = 0; i < count; ++i) {
    const std::string& source = pool_->record(selected_[i].sample).source;
    ++sources[source].second;
    weights[source] += weights_[i];
  }
  nlohmann::ordered_json report = {
      {"method", NameOf(select_.method)}, {"pool", pool_->set().directory()}, {"target", target_->set().directory()}};
  for (const auto& [source, counts] : sources) {
    const auto share = [](double part, double whole) { return whole > 0 ? part / whole : 0; };
    report["sources"].push_back(
        {{"source", source},
         {"pool", counts.first},
         {"selected", counts.second},
         {"pool_share", share(static_cast<double>(counts.first), static_cast<double>(pool_->size()))},
         {"selected_share", share(static_cast<double>(counts.second), static_cast<double>(count))},
         {"weight_share", share(weights[source], static_cast<double>(count))}});
  }
  for (const auto& [name, value] : numbers_) report["values"][name] = value;
  return report;
}

absl::StatusOr<v1::JobResult> SelectDataJob::Finish() {
  TY_RETURN_IF_ERROR(StopIfAsked());
  v1::JobResult result;
  const JobPlace& place = context_->place();
  if (place.rank != 0) return result;
  context_->EnterSection("export");
  const std::string directory = JoinPath(place.attempt_dir, "selection");
  const data::SampleSetInfo& info = pool_->set().info();
  TY_ASSIGN_OR_RETURN(const std::string tokenizer, ReadFile(data::TokenizerPath(pool_->set().directory())));
  TY_ASSIGN_OR_RETURN(data::SampleSetWriter writer,
                      data::SampleSetWriter::Create(directory, info.vocab_size, info.end_of_text_id, tokenizer));
  const auto count = static_cast<size_t>(numbers_.at("selected"));
  for (size_t i = 0; i < count; ++i) {
    const Selected& selected = selected_[i];
    data::SampleRecord record = pool_->record(selected.sample);
    record.weight = weights_[i];
    record.score = selected.score;
    record.round = selected.round;
    TY_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, pool_->AllTokens(selected.sample));
    TY_RETURN_IF_ERROR(writer.Add(std::move(record), tokens));
  }
  // What was selected for is what a training on it is judged by.
  for (int64_t i = 0; i < target_->size(); ++i) {
    data::SampleRecord record = target_->record(i);
    record.id = absl::StrCat("target/", record.id);
    record.split = data::Split::kValidation;
    TY_ASSIGN_OR_RETURN(const std::vector<int32_t> tokens, target_->AllTokens(i));
    TY_RETURN_IF_ERROR(writer.Add(std::move(record), tokens));
  }
  data::SampleProvenance provenance;
  provenance.method = NameOf(select_.method);
  provenance.job_uid = place.job_uid;
  TY_ASSIGN_OR_RETURN(provenance.pool_fingerprint, pool_->Fingerprint());
  TY_ASSIGN_OR_RETURN(provenance.target_fingerprint, target_->Fingerprint());
  provenance.pool_samples = pool_->size();
  TY_ASSIGN_OR_RETURN(const data::SampleSetInfo written, writer.Finish(provenance));

  v1::Artifact& artifact = *result.add_artifacts();
  artifact.set_name("selection");
  artifact.set_path(directory);
  artifact.set_bytes(written.shard.info.token_count * written.shard.info.bytes_per_token);
  for (const auto& [name, value] : numbers_) (*result.mutable_values())[name] = value;
  (*result.mutable_values())["pool_samples"] = static_cast<double>(pool_->size());
  (*result.mutable_values())["target_samples"] = static_cast<double>(target_->size());
  (*result.mutable_values())["unlabelled_samples"] = static_cast<double>(pool_->unlabelled_count());
  (*result.mutable_documents())["report"] = Report().dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
  return result;
}

}  // namespace

std::unique_ptr<Job> MakeSelectDataJob(const spec::JobOptions& options) {
  return std::make_unique<SelectDataJob>(options);
}

}  // namespace trainyard::jobs
