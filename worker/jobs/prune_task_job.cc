#include "worker/jobs/prune_task_job.h"

#include <cmath>
#include <utility>
#include <variant>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/ckpt/checkpoint.h"
#include "worker/data/loader.h"
#include "worker/model/hugging_face.h"
#include "worker/prune/task/candidate.h"
#include "worker/prune/task/database.h"
#include "worker/prune/task/documents.h"
#include "worker/prune/task/hessians.h"

namespace trainyard::jobs {
namespace {

using kernels::DType;

class PruneTaskJob final : public Job {
 public:
  explicit PruneTaskJob(const spec::JobOptions& options)
      : options_(options), task_(std::get<spec::PruneTaskOptions>(options.kind).task) {}

  absl::Status Prepare(JobContext& context) override;
  std::map<std::string, int64_t> MemoryPlan() const override;
  absl::Status Initialize() override {
    step_ = 0;
    return absl::OkStatus();
  }
  absl::Status Restore(ckpt::CheckpointReader& reader) override {
    TY_ASSIGN_OR_RETURN(const std::string text, reader.Text("result"));
    if (!result_.ParseFromString(absl::HexStringToBytes(text))) {
      return absl::DataLossError("the checkpoint's result is none");
    }
    step_ = reader.step();
    return absl::OkStatus();
  }
  absl::Status Save(ckpt::CheckpointWriter& writer) override {
    writer.AddText("result", absl::BytesToHexString(result_.SerializeAsString()));
    return absl::OkStatus();
  }
  int64_t step() const override { return step_; }
  absl::StatusOr<UnitResult> RunUnit() override;
  absl::StatusOr<v1::JobResult> Finish() override { return result_; }

 private:
  absl::Status Run(const spec::PruneCalibrateTask& task);
  absl::Status Run(const spec::PruneLayersTask& task);
  absl::Status Run(const spec::PruneCandidateTask& task);

  std::string DataDirectory() const { return JoinPath(context_->place().data_root, options_.data.path); }
  DType ModelDType() const { return options_.model.dtype == spec::FloatType::kBf16 ? DType::kBF16 : DType::kF32; }
  absl::StatusOr<prune::DocumentPool> OpenPool(prune::Half half, int64_t tokens) const;
  std::function<bool()> ShouldStop() {
    return [this] { return context_->ShouldStop(); };
  }
  void AddArtifact(const std::string& name, const std::string& path, int64_t bytes);
  double& Value(const std::string& name) { return (*result_.mutable_values())[name]; }

  const spec::JobOptions options_;
  const std::variant<spec::PruneCalibrateTask, spec::PruneLayersTask, spec::PruneCandidateTask> task_;
  JobContext* context_ = nullptr;
  std::string model_directory_;
  model::ModelConfig config_;
  std::unique_ptr<kernels::Stream> stream_;
  int64_t step_ = 0;
  v1::JobResult result_;
};

absl::Status PruneTaskJob::Prepare(JobContext& context) {
  context_ = &context;
  const JobPlace& place = context.place();
  const auto* const source = std::get_if<spec::PathModel>(&options_.model.source);
  if (source == nullptr || source->from_scratch) {
    return absl::InvalidArgumentError("model: pruning needs a folder with weights: give model.path");
  }
  if (place.world_size > 1 && !std::holds_alternative<spec::PruneCalibrateTask>(task_)) {
    return absl::InvalidArgumentError(
        absl::StrCat("world.max: ", place.world_size, " ranks, but only a calibrate task has work for more than one"));
  }
  model_directory_ = JoinPath(place.data_root, source->path);
  TY_ASSIGN_OR_RETURN(config_, model::ReadConfig(model_directory_));
  if (options_.data.sequence_length < 2 || options_.data.sequence_length > config_.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat("data.sequence_length: ", options_.data.sequence_length,
                                                   " not in [2, ", config_.max_positions, "], the model's positions"));
  }
  if (const auto* const candidate = std::get_if<spec::PruneCandidateTask>(&task_)) {
    if (candidate->fine_tune.master_dtype == spec::PruneFloat::kBf16 && ModelDType() != DType::kBF16) {
      return absl::InvalidArgumentError("prune_task.candidate.fine_tune.master_dtype: bf16 needs model.dtype bf16");
    }
    if (candidate->kl_top_k > config_.vocab_size && candidate->fitness == spec::PruneFitness::kTopKKl) {
      return absl::InvalidArgumentError(absl::StrCat("prune_task.candidate.kl_top_k: ", candidate->kl_top_k,
                                                     " not in [1, ", config_.vocab_size, "], the model's words"));
    }
  }
  if (const auto* const layers = std::get_if<spec::PruneLayersTask>(&task_)) {
    if (layers->block >= config_.layers) {
      return absl::InvalidArgumentError(
          absl::StrCat("prune_task.layers.block: ", layers->block, " not in [0, ", config_.layers, ")"));
    }
  }
  // Elimination is the host's work, wherever the rest is done.
  const bool on_gpu =
      options_.world.slot_type == spec::SlotType::kGpu && !std::holds_alternative<spec::PruneLayersTask>(task_);
  if (on_gpu) TY_RETURN_IF_ERROR(kernels::CheckCudaDevice());
  stream_ = std::make_unique<kernels::Stream>(on_gpu ? kernels::Device::kCuda : kernels::Device::kCpu,
                                              options_.world.threads_per_rank);
  return absl::OkStatus();
}

std::map<std::string, int64_t> PruneTaskJob::MemoryPlan() const {
  const int64_t element = ModelDType() == DType::kBF16 ? 2 : 4;
  return {{"weights", model::ParameterCount(config_) * element}};
}

absl::StatusOr<UnitResult> PruneTaskJob::RunUnit() {
  result_.Clear();
  TY_RETURN_IF_ERROR(std::visit([this](const auto& task) { return Run(task); }, task_));
  step_ = 1;
  UnitResult unit{.step = 1, .total_steps = 1, .done = true, .metrics = {}};
  for (const auto& [name, value] : result_.values()) unit.metrics[name] = value;
  return unit;
}

void PruneTaskJob::AddArtifact(const std::string& name, const std::string& path, int64_t bytes) {
  v1::Artifact& artifact = *result_.add_artifacts();
  artifact.set_name(name);
  artifact.set_path(path);
  artifact.set_bytes(bytes);
}

absl::StatusOr<prune::DocumentPool> PruneTaskJob::OpenPool(prune::Half half, int64_t tokens) const {
  return prune::DocumentPool::Open({.directory = DataDirectory(),
                                    .half = half,
                                    .sequence_length = options_.data.sequence_length,
                                    .most_tokens = tokens,
                                    .vocab_size = config_.vocab_size});
}

absl::Status PruneTaskJob::Run(const spec::PruneCalibrateTask& task) {
  context_->EnterSection("calibrate");
  TY_ASSIGN_OR_RETURN(const prune::DocumentPool pool, OpenPool(prune::Half::kFirst, task.tokens));
  std::vector<prune::Document> documents;
  for (int64_t i = 0; i < pool.size(); ++i) documents.push_back(pool.document(i));
  TY_ASSIGN_OR_RETURN(const prune::LoadedModel dense, prune::LoadDenseModel(model_directory_, DType::kF32, *stream_));
  const std::string directory = JoinPath(context_->place().attempt_dir, "hessians");
  prune::CalibrationArgs args;
  args.config = &dense.config;
  args.weights = &dense.weights;
  args.documents = &documents;
  args.sequence_length = options_.data.sequence_length;
  args.directory = directory;
  args.communicator = context_->place().world_size > 1 ? context_->communicator() : nullptr;
  args.agree_to_stop = [this] { return context_->AgreeToStop(); };
  TY_ASSIGN_OR_RETURN(const int64_t bytes, Calibrate(args, *stream_));
  if (context_->place().rank != 0) return absl::OkStatus();
  AddArtifact("hessians", directory, bytes);
  Value("sequences") = static_cast<double>(documents.size());
  Value("tokens") = static_cast<double>(pool.token_count());
  return absl::OkStatus();
}

absl::Status PruneTaskJob::Run(const spec::PruneLayersTask& task) {
  context_->EnterSection("prune");
  const bool is_attention = task.module == spec::PruneModule::kAttention;
  const int64_t columns = is_attention ? config_.q_heads * config_.head_dim : config_.intermediate_size;
  const int64_t group = is_attention ? config_.head_dim : 1;
  for (int32_t removed : task.removed_columns) {
    if (removed > columns || removed % group != 0) {
      return absl::InvalidArgumentError(absl::StrCat("prune_task.layers.removed_columns: ", removed,
                                                     " is not a multiple of ", group, " up to ", columns));
    }
  }
  TY_ASSIGN_OR_RETURN(std::vector<float> weights,
                      prune::ReadModuleWeights(model_directory_, config_, task.block, task.module, *stream_));
  TY_ASSIGN_OR_RETURN(std::vector<float> hessian,
                      prune::ReadHessian(prune::HessianPath(task.hessians, task.block, task.module), columns));
  prune::StoredModule module;
  module.folder = JoinPath(context_->place().attempt_dir, "levels");
  module.block = task.block;
  module.module = task.module;
  module.rows = config_.hidden_size;
  module.columns = columns;
  module.group = group;
  prune::ModuleWriter writer(module, task.store_dtype);
  const auto on_level = [&](const kernels::ObsLevel& level) -> absl::Status {
    if (context_->ShouldStop()) return absl::CancelledError("asked to stop while pruning");
    Value(absl::StrCat("error_", level.level)) = level.error;
    return writer.Add(level, *stream_);
  };
  TY_RETURN_IF_ERROR(Annotate(ObsLevels({.w = {weights.data(), DType::kF32, {config_.hidden_size, columns}},
                                         .hessian = {hessian.data(), DType::kF32, {columns, columns}},
                                         .group = group,
                                         .removed = task.removed_columns,
                                         .relative_damping = task.relative_damping,
                                         .by_magnitude = task.by_magnitude},
                                        on_level, *stream_),
                              absl::StrCat("block ", task.block, " ", prune::Name(task.module))));
  TY_RETURN_IF_ERROR(writer.Finish());
  AddArtifact("levels", module.folder, writer.bytes());
  Value("columns") = static_cast<double>(columns);
  return absl::OkStatus();
}

absl::Status PruneTaskJob::Run(const spec::PruneCandidateTask& task) {
  context_->EnterSection("load");
  const uint64_t seed = options_.seed.value_or(0);
  const int64_t sequence_length = options_.data.sequence_length;
  TY_ASSIGN_OR_RETURN(const prune::Database database, prune::Database::Open(task.database, context_->file_cache()));
  TY_RETURN_IF_ERROR(database.CheckModel(config_));
  const prune::Genome genome{task.attention_levels, task.mlp_levels};
  TY_ASSIGN_OR_RETURN(const std::vector<prune::BlockRemoval> removals, database.Removals(genome));
  TY_ASSIGN_OR_RETURN(const prune::LoadedModel dense, prune::LoadDenseModel(model_directory_, ModelDType(), *stream_));
  TY_ASSIGN_OR_RETURN(const prune::DocumentPool evaluation_pool,
                      OpenPool(prune::Half::kSecond, task.evaluation_pool_tokens));
  TY_ASSIGN_OR_RETURN(const std::vector<prune::Document> evaluation,
                      evaluation_pool.Draw(seed, task.draw, task.evaluation_tokens, /*cut_last=*/true));
  TY_ASSIGN_OR_RETURN(prune::LoadedModel candidate,
                      StitchShrunk(dense, database, genome, task.prune_kv_heads, *stream_));
  Value("parameters") = static_cast<double>(model::ParameterCount(candidate.config));

  const bool is_top_k = task.fitness == spec::PruneFitness::kTopKKl;
  prune::DistanceMeter meter(&dense, sequence_length, is_top_k ? task.kl_top_k : 0, stream_.get());
  prune::DistanceMeter whole_meter(&dense, sequence_length, 0, stream_.get());
  std::vector<prune::Document> validation;
  if (task.perplexity_batches > 0) {
    context_->EnterSection("evaluate");
    TY_ASSIGN_OR_RETURN(const data::Loader loader,
                        data::Loader::Open({.directory = DataDirectory(),
                                            .sequence_length = static_cast<int>(sequence_length),
                                            .seed = seed,
                                            .vocab_size = static_cast<int32_t>(config_.vocab_size)}));
    TY_ASSIGN_OR_RETURN(validation, prune::ValidationDocuments(loader, task.perplexity_batches,
                                                               options_.training.micro_batch, sequence_length));
    if (validation.empty()) {
      LogWarning(DataDirectory(), ": no validation window of ", sequence_length,
                 " tokens: the documents of the fitness stand in for them");
      validation = evaluation;
    }
    TY_ASSIGN_OR_RETURN(const prune::Distance distance, whole_meter.Measure(candidate, validation, ShouldStop()));
    Value("kl") = distance.kl;
    Value("perplexity") = std::exp(distance.loss);
    Value("dense_perplexity") = std::exp(distance.dense_loss);
  }
  if (task.export_model) {
    context_->EnterSection("export");
    const std::string directory = JoinPath(context_->place().attempt_dir, "model");
    TY_ASSIGN_OR_RETURN(const int64_t bytes,
                        ExportModel(candidate.config, candidate.weights.all,
                                    {.directory = directory, .tokenizer_source = DataDirectory()}));
    AddArtifact("model", directory, bytes);
    nlohmann::ordered_json heads = nlohmann::ordered_json::array(), channels = heads;
    for (const prune::BlockRemoval& removal : removals) {
      heads.push_back(removal.heads);
      channels.push_back(removal.channels);
    }
    (*result_.mutable_documents())["structure"] =
        nlohmann::ordered_json{{"removed_heads", heads}, {"removed_channels", channels}}.dump();
  }

  int64_t train_tokens = 0;
  if (task.train_tokens > 0) {
    context_->EnterSection("tune");
    TY_ASSIGN_OR_RETURN(const prune::DocumentPool train_pool, OpenPool(prune::Half::kFirst, task.train_pool_tokens));
    TY_ASSIGN_OR_RETURN(const std::vector<prune::Document> documents,
                        train_pool.Draw(seed, task.draw, task.train_tokens, /*cut_last=*/false));
    for (const prune::Document& document : documents) train_tokens += static_cast<int64_t>(document.size());
    if (task.fine_tune.enforcement != spec::PruneEnforcement::kShrink) {
      TY_ASSIGN_OR_RETURN(candidate, StitchDense(dense, database, genome, *stream_));
    }
    TY_RETURN_IF_ERROR(prune::FineTune({.options = task.fine_tune,
                                        .sequence_length = sequence_length,
                                        .removals = &removals,
                                        .should_stop = ShouldStop()},
                                       documents, candidate, *stream_)
                           .status());
  }
  context_->EnterSection("evaluate");
  TY_ASSIGN_OR_RETURN(const prune::Distance distance, meter.Measure(candidate, evaluation, ShouldStop()));
  Value("fitness") = task.fitness == spec::PruneFitness::kPerplexity ? std::exp(distance.loss) : distance.kl;
  Value("train_tokens") = static_cast<double>(train_tokens);
  Value("evaluation_tokens") = static_cast<double>(task.evaluation_tokens);
  if (!validation.empty() && train_tokens > 0) {
    TY_ASSIGN_OR_RETURN(const prune::Distance tuned, whole_meter.Measure(candidate, validation, ShouldStop()));
    Value("tuned_kl") = tuned.kl;
    Value("tuned_perplexity") = std::exp(tuned.loss);
  }
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<Job> MakePruneTaskJob(const spec::JobOptions& options) {
  return std::make_unique<PruneTaskJob>(options);
}

}  // namespace trainyard::jobs
