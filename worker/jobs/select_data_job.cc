#include "worker/jobs/select_data_job.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/data/permutation.h"
#include "worker/jobs/pretrain_setup.h"
#include "worker/jobs/select_data_internal.h"
#include "worker/model/hugging_face.h"

namespace trainyard::jobs {
namespace internal {
namespace {

// Recipe of the warm-up (influence-distillation.md 2.9).
constexpr double kWarmupFraction = 0.03;
constexpr double kBeta2 = 0.999;

// A checkpoint has no f64; the numbers' bytes do.
template <typename T>
TensorView Bytes(std::vector<T>& values) {
  return {values.data(), kernels::DType::kU8, {static_cast<int64_t>(values.size() * sizeof(T))}};
}

}  // namespace

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
    features.device = trained.device;
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
  tangents.device = trained.device;
  std::vector<const float*> weights;
  for (const TensorView& leading : trainer_->leading_weights()) weights.push_back(leading.as<float>());
  tangents_ = std::make_unique<model::TangentNetwork<float>>(trained.config, tangents, std::move(weights));
  embedding_width_ = trained.config.hidden_size;
  if (is_rds) return ReserveEmbeddings(trained.device);
  const int64_t raw = tangents.tangents * trained.config.hidden_size;
  // A projection that would not make the vector shorter is left out.
  const bool projects = select_.embedding.projection_dim < raw;
  embedding_projection_ = std::make_unique<kernels::RandomProjection>(
      projects ? kernels::RandomProjection::Kind::kHadamard : kernels::RandomProjection::Kind::kNone, raw,
      select_.embedding.projection_dim, select_.embedding.seed, trained.device);
  embedding_width_ = embedding_projection_->outputs();
  return ReserveEmbeddings(trained.device);
}

absl::Status SelectDataJob::ReserveEmbeddings(kernels::Device device) {
  const bool projects = embedding_projection_ != nullptr;
  const auto lay = [&](kernels::Arena& arena) -> EmbeddingMemory {
    const auto floats = [&](int64_t count) {
      return arena.Allocate("embeddings", kernels::DType::kF32, {count}).as<float>();
    };
    EmbeddingMemory memory;
    memory.out = floats(kBatch * embedding_width_);
    memory.raw = floats(projects ? embedding_projection_->length() : 0);
    memory.scratch = floats(projects ? embedding_projection_->scratch_size() : 0);
    const int64_t sums = projects ? 0 : embedding_width_;
    memory.sums = static_cast<double*>(
        arena.Allocate("embeddings", kernels::DType::kU8, {sums * static_cast<int64_t>(sizeof(double))}).data());
    return memory;
  };
  kernels::Arena counting = kernels::Arena::CountOnly(device);
  lay(counting);
  TY_ASSIGN_OR_RETURN(embedding_arena_, kernels::Arena::Reserve(counting));
  embedding_memory_ = lay(embedding_arena_);
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
  plan["embeddings"] = bytes(embeddings_) + embedding_arena_.used_bytes();
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

static const char* NameOf(SelectionMethod method) {
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

}  // namespace internal

std::unique_ptr<Job> MakeSelectDataJob(const spec::JobOptions& options) {
  return std::make_unique<internal::SelectDataJob>(options);
}

}  // namespace trainyard::jobs
