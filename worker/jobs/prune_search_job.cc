#include "worker/jobs/prune_search_job.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>
#include <variant>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "proto/spec/field_errors.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/data/dataset.h"
#include "worker/jobs/prune_trials.h"
#include "worker/model/hugging_face.h"
#include "worker/prune/search/baselines.h"
#include "worker/prune/search/evolution.h"
#include "worker/prune/task/database.h"

namespace trainyard::jobs {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kUnitsBeside = 3;  // calibrate, layers, last
constexpr int64_t kFinalDraw = 0;    // of documents; those of stages follow

const char* NameOf(spec::PruneBaseline baseline) {
  switch (baseline) {
    case spec::PruneBaseline::kUniform:
      return "uniform";
    case spec::PruneBaseline::kSpdy:
      return "spdy";
    case spec::PruneBaseline::kMagnitude:
      return "magnitude";
    case spec::PruneBaseline::kDepth:
      return "depth";
  }
  return "";
}

class PruneSearchJob final : public Job {
 public:
  explicit PruneSearchJob(const spec::JobOptions& options)
      : options_(options), search_(std::get<spec::PruneSearchOptions>(options.kind)) {}

  absl::Status Prepare(JobContext& context) override;
  std::map<std::string, int64_t> MemoryPlan() const override { return {}; }  // the trials have it
  absl::Status Initialize() override;
  absl::Status Restore(ckpt::CheckpointReader& reader) override;
  absl::Status Save(ckpt::CheckpointWriter& writer) override;
  int64_t step() const override { return step_; }
  absl::StatusOr<UnitResult> RunUnit() override;
  absl::StatusOr<v1::JobResult> Finish() override { return result_; }

 private:
  bool HasBaseline(spec::PruneBaseline baseline) const {
    return std::find(search_.baselines.begin(), search_.baselines.end(), baseline) != search_.baselines.end();
  }
  // Runs the next generation of trials.
  absl::StatusOr<std::vector<v1::TrialOutcome>> RunTrials(const std::string& label, std::vector<v1::JobSpec> specs);

  absl::Status RunPhase(std::map<std::string, double>* metrics);
  absl::Status RunCalibration();
  absl::Status RunLayers();
  absl::Status RunGeneration(std::map<std::string, double>* metrics);
  absl::Status RunLast();
  absl::Status Continue(const std::string& model);
  v1::JobSpec CandidateSpec(const std::string& database, const prune::Genome& genome,
                            const spec::PruneStageOptions& stage, int64_t draw) const;
  absl::StatusOr<std::string> WriteIndex(const std::vector<std::string>& folders) const;
  void AddDocuments(const prune::Genome& winner, const v1::JobResult& measured,
                    const std::map<std::string, prune::Genome>& baselines);

  const spec::JobOptions options_;
  const spec::PruneSearchOptions search_;
  JobContext* context_ = nullptr;
  model::ModelConfig config_;
  std::vector<int32_t> levels_attention_, levels_mlp_;
  prune::ParameterTable parameters_;
  prune::Genome start_;
  std::optional<PruneTrials> trials_;

  // The state: what a checkpoint holds.
  int64_t step_ = 0;
  int64_t next_number_ = 1;  // of a generation of trials
  std::string hessians_, database_, magnitude_database_;
  std::unique_ptr<prune::Evolution> evolution_;
  v1::JobResult result_;
};

absl::Status PruneSearchJob::Prepare(JobContext& context) {
  context_ = &context;
  const JobPlace& place = context.place();
  const auto* const source = std::get_if<spec::PathModel>(&options_.model.source);
  if (source == nullptr || source->from_scratch) {
    return absl::InvalidArgumentError("model: a search needs weights: give model.path or model.artifact");
  }
  const std::string directory = JoinPath(place.data_root, source->path);
  TY_ASSIGN_OR_RETURN(config_, model::ReadConfig(directory));
  TY_RETURN_IF_ERROR(Validate(config_));
  if (!config_.blocks.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("model: ", directory, " has blocks of different sizes: it has been pruned already"));
  }
  TY_RETURN_IF_ERROR(data::ReadDatasetInfo(JoinPath(place.data_root, options_.data.path)).status());

  if (options_.data.sequence_length < 2 || options_.data.sequence_length > config_.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat("data.sequence_length: ", options_.data.sequence_length,
                                                   " not in [2, ", config_.max_positions, "], the model's positions"));
  }

  spec::FieldErrors errors("prune_search");
  spec::FieldErrors database = errors.In("database");
  const auto width = static_cast<int32_t>(config_.q_heads * config_.head_dim);
  levels_attention_ = LevelsOf(search_.database.levels_attention, search_.database.levels, width,
                               static_cast<int32_t>(config_.head_dim), "levels_attention", database);
  levels_mlp_ = LevelsOf(search_.database.levels_mlp, search_.database.levels,
                         static_cast<int32_t>(config_.intermediate_size), 1, "levels_mlp", database);
  if (search_.search.fitness == spec::PruneFitness::kTopKKl && search_.search.kl_top_k > config_.vocab_size) {
    errors.Add("search.kl_top_k",
               absl::StrCat(search_.search.kl_top_k, " not in [1, ", config_.vocab_size, "], the model's words"));
  }
  if (search_.search.fine_tune.master_dtype == spec::PruneFloat::kBf16 &&
      options_.model.dtype != spec::FloatType::kBf16) {
    errors.Add("search.fine_tune.master_dtype", "bf16 needs model.dtype bf16");
  }
  TY_RETURN_IF_ERROR(errors.ToStatus());

  parameters_ = prune::ParametersOf(config_, levels_attention_, levels_mlp_, search_.database.prune_kv_heads);
  const auto blocks = static_cast<size_t>(config_.layers);
  int64_t target = 0;
  if (search_.search.target_parameters) {
    target = *search_.search.target_parameters;
    TY_ASSIGN_OR_RETURN(start_, GenomeForParameters(parameters_, target, search_.search.parameters_tolerance));
  } else {
    const auto last = static_cast<int32_t>(levels_attention_.size()) - 1;
    start_ = prune::UniformGenome(blocks, search_.search.target_level.value_or(last / 2));
    target = parameters_.Count(start_);
  }
  prune::EvolutionRules rules;
  rules.mutation = {.levels = static_cast<int32_t>(levels_attention_.size()),
                    .max_flips = search_.search.max_flips,
                    .parameters = &parameters_,
                    .target_parameters = target,
                    .tolerance = search_.search.parameters_tolerance};
  rules.offspring = search_.search.offspring;
  rules.survivors.clear();
  for (const spec::PruneStageOptions& stage : search_.search.stages) rules.survivors.push_back(stage.survivors);
  rules.seed = options_.seed.value_or(0);
  evolution_ = std::make_unique<prune::Evolution>(rules, start_);
  trials_.emplace(place.spec, source->path, options_.seed.value_or(0));
  return absl::OkStatus();
}

absl::Status PruneSearchJob::Initialize() {
  step_ = 0;
  next_number_ = 1;
  return absl::OkStatus();
}

absl::Status PruneSearchJob::Save(ckpt::CheckpointWriter& writer) {
  const Json state = {{"next_number", next_number_},
                      {"hessians", hessians_},
                      {"database", database_},
                      {"magnitude_database", magnitude_database_}};
  writer.AddText("state", state.dump());
  writer.AddText("evolution", evolution_->ToJson());
  writer.AddText("result", absl::BytesToHexString(result_.SerializeAsString()));
  return absl::OkStatus();
}

absl::Status PruneSearchJob::Restore(ckpt::CheckpointReader& reader) {
  TY_ASSIGN_OR_RETURN(const std::string state, reader.Text("state"));
  TY_ASSIGN_OR_RETURN(const std::string evolution, reader.Text("evolution"));
  TY_ASSIGN_OR_RETURN(const std::string result, reader.Text("result"));
  try {
    const Json root = Json::parse(state);
    next_number_ = root.at("next_number").get<int64_t>();
    hessians_ = root.at("hessians").get<std::string>();
    database_ = root.at("database").get<std::string>();
    magnitude_database_ = root.at("magnitude_database").get<std::string>();
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat("the checkpoint's search state: ", error.what()));
  }
  TY_RETURN_IF_ERROR(evolution_->Restore(evolution));
  if (!result_.ParseFromString(absl::HexStringToBytes(result))) {
    return absl::DataLossError("the checkpoint's result is none");
  }
  step_ = reader.step();
  return absl::OkStatus();
}

absl::StatusOr<UnitResult> PruneSearchJob::RunUnit() {
  context_->EnterSection("trials");
  // A unit that breaks off leaves the state as it was: it may be saved then.
  const prune::Evolution evolution = *evolution_;
  const int64_t next_number = next_number_;
  UnitResult unit;
  if (absl::Status status = RunPhase(&unit.metrics); !status.ok()) {
    *evolution_ = evolution;
    next_number_ = next_number;
    result_.Clear();
    return status;
  }
  ++step_;
  unit.step = step_;
  unit.total_steps = search_.search.generations + kUnitsBeside;
  unit.done = step_ == unit.total_steps;
  return unit;
}

absl::Status PruneSearchJob::RunPhase(std::map<std::string, double>* metrics) {
  if (step_ == 0) return RunCalibration();
  if (step_ == 1) return RunLayers();
  if (step_ < search_.search.generations + 2) return RunGeneration(metrics);
  return RunLast();
}

absl::StatusOr<std::vector<v1::TrialOutcome>> PruneSearchJob::RunTrials(const std::string& label,
                                                                        std::vector<v1::JobSpec> specs) {
  v1::TrialGeneration generation;
  generation.set_number(next_number_);
  generation.set_label(label);
  for (v1::JobSpec& spec : specs) *generation.add_specs() = std::move(spec);
  const auto on_outcome = [this](const v1::TrialOutcome&) { context_->ShouldStop(); };
  TY_ASSIGN_OR_RETURN(std::vector<v1::TrialOutcome> outcomes, context_->trials()->Run(generation, on_outcome));
  ++next_number_;
  return outcomes;
}

absl::Status PruneSearchJob::RunCalibration() {
  TY_ASSIGN_OR_RETURN(const std::vector<v1::TrialOutcome> outcomes,
                      RunTrials("calibration", {trials_->Calibrate(search_.database.calibration_tokens)}));
  TY_ASSIGN_OR_RETURN(hessians_, ArtifactOf(outcomes.front(), "hessians", "calibration"));
  return absl::OkStatus();
}

absl::Status PruneSearchJob::RunLayers() {
  std::vector<v1::JobSpec> specs;
  const bool has_magnitude = HasBaseline(spec::PruneBaseline::kMagnitude);
  for (const bool by_magnitude : {false, true}) {
    if (by_magnitude && !has_magnitude) continue;
    for (int64_t block = 0; block < config_.layers; ++block) {
      for (spec::PruneModule module : {spec::PruneModule::kAttention, spec::PruneModule::kMlp}) {
        const auto& levels = module == spec::PruneModule::kAttention ? levels_attention_ : levels_mlp_;
        specs.push_back(trials_->Layers(hessians_, block, module, levels, search_.database, by_magnitude));
      }
    }
  }
  TY_ASSIGN_OR_RETURN(const std::vector<v1::TrialOutcome> outcomes, RunTrials("layers", std::move(specs)));
  std::vector<std::string> folders;
  for (const v1::TrialOutcome& outcome : outcomes) {
    TY_ASSIGN_OR_RETURN(folders.emplace_back(),
                        ArtifactOf(outcome, "levels", absl::StrCat("layers, trial ", outcome.index())));
  }
  const auto middle = folders.begin() + 2 * config_.layers;
  TY_ASSIGN_OR_RETURN(database_, WriteIndex({folders.begin(), middle}));
  if (has_magnitude) {
    TY_ASSIGN_OR_RETURN(magnitude_database_, WriteIndex({middle, folders.end()}));
  }
  return absl::OkStatus();
}

// Candidates' specs name the index, and must be the same from every attempt of this job: so it lies beside the
// attempts, under a name that its content gives, and whoever writes it writes the same bytes.
absl::StatusOr<std::string> PruneSearchJob::WriteIndex(const std::vector<std::string>& folders) const {
  TY_ASSIGN_OR_RETURN(const std::string index, prune::Database::MakeIndex(folders));
  const std::string job_dir = std::filesystem::path(context_->place().attempt_dir).parent_path().string();
  const std::string path = JoinPath(job_dir, prune::Database::FileName(index));
  TY_RETURN_IF_ERROR(WriteFileAtomic(path, index));
  return path;
}

v1::JobSpec PruneSearchJob::CandidateSpec(const std::string& database, const prune::Genome& genome,
                                          const spec::PruneStageOptions& stage, int64_t draw) const {
  return trials_->Candidate(database, genome, stage, draw, search_.search, search_.database.prune_kv_heads);
}

absl::Status PruneSearchJob::RunGeneration(std::map<std::string, double>* metrics) {
  evolution_->Begin();
  const int64_t generation = evolution_->generation() + 1;
  const auto stages = static_cast<int64_t>(search_.search.stages.size());
  if (evolution_->candidates().empty()) {
    LogWarning("generation ", generation, ": no child differs from the parent and keeps the target");
    evolution_->Skip();
  }
  while (evolution_->stage() != 0) {
    const int64_t stage = evolution_->stage();
    const int64_t draw = search_.search.resample ? (generation - 1) * stages + stage : 1;
    std::vector<v1::JobSpec> specs;
    for (const prune::Genome& genome : evolution_->candidates()) {
      specs.push_back(CandidateSpec(database_, genome, search_.search.stages[static_cast<size_t>(stage - 1)], draw));
    }
    TY_ASSIGN_OR_RETURN(const std::vector<v1::TrialOutcome> outcomes,
                        RunTrials(absl::StrCat("generation ", generation, " stage ", stage), std::move(specs)));
    std::vector<std::optional<double>> fitness;
    for (const v1::TrialOutcome& outcome : outcomes) {
      fitness.push_back(ValueOf(outcome, "fitness"));
      if (!fitness.back()) {
        LogWarning("generation ", generation, " stage ", stage, ": candidate ", outcome.index(), " (",
                   outcome.job_uid(), ") failed: ", outcome.exit().message());
      }
    }
    if (absl::Status status = evolution_->Report(fitness); !status.ok()) {
      return Annotate(status, absl::StrCat("the first one: ", outcomes.front().exit().message()));
    }
  }
  const prune::GenerationRecord& record = evolution_->history().back();
  (*metrics)["generation"] = static_cast<double>(record.generation);
  if (record.best_fitness) (*metrics)["best_fitness"] = *record.best_fitness;
  if (record.parent_fitness) (*metrics)["parent_fitness"] = *record.parent_fitness;
  (*metrics)["trials"] = record.trials;
  (*metrics)["failed_trials"] = record.failed_trials;
  (*metrics)["parameters"] = static_cast<double>(record.parameters);
  return absl::OkStatus();
}

absl::Status PruneSearchJob::RunLast() {
  result_.Clear();
  TY_ASSIGN_OR_RETURN(const prune::Database database, prune::Database::Open(database_));
  const int64_t target = parameters_.Count(start_);
  std::vector<std::pair<std::string, prune::Genome>> measured = {{"", evolution_->parent()}};
  for (spec::PruneBaseline baseline : search_.baselines) {
    prune::Genome genome = start_;
    if (baseline == spec::PruneBaseline::kSpdy) {
      TY_ASSIGN_OR_RETURN(genome, SpdyGenome(parameters_, database.Errors(), target));
    } else if (baseline == spec::PruneBaseline::kDepth) {
      genome = DepthGenome(parameters_, database.Errors(), target, search_.search.parameters_tolerance);
    }
    measured.emplace_back(absl::StrCat(NameOf(baseline), "_"), std::move(genome));
  }
  std::vector<v1::JobSpec> specs;
  for (const auto& [prefix, genome] : measured) {
    v1::JobSpec spec = CandidateSpec(prefix == "magnitude_" ? magnitude_database_ : database_, genome,
                                     search_.search.stages.back(), kFinalDraw);
    spec.mutable_prune_task()->mutable_candidate()->set_export_model(prefix.empty());
    spec.mutable_prune_task()->mutable_candidate()->set_perplexity_batches(search_.evaluation_batches);
    specs.push_back(std::move(spec));
  }
  TY_ASSIGN_OR_RETURN(const std::vector<v1::TrialOutcome> outcomes, RunTrials("winner and baselines", specs));

  auto& values = *result_.mutable_values();
  std::map<std::string, prune::Genome> baselines;
  for (size_t i = 0; i < outcomes.size(); ++i) {
    const auto& [prefix, genome] = measured[i];
    if (!prefix.empty()) baselines[prefix.substr(0, prefix.size() - 1)] = genome;
    if (!ValueOf(outcomes[i], "parameters") && !prefix.empty()) {
      LogWarning("baseline ", prefix, " failed: ", outcomes[i].exit().message());
      values[prefix + "failed"] = 1;
      continue;
    }
    for (const char* name : {"parameters", "kl", "perplexity", "tuned_kl", "tuned_perplexity"}) {
      if (const std::optional<double> value = ValueOf(outcomes[i], name)) values[prefix + name] = *value;
    }
  }
  TY_ASSIGN_OR_RETURN(const std::string model, ArtifactOf(outcomes.front(), "model", "the winner"));
  values["dense_parameters"] = static_cast<double>(model::ParameterCount(config_));
  if (const auto value = ValueOf(outcomes.front(), "dense_perplexity")) values["dense_perplexity"] = *value;
  values["generations"] = static_cast<double>(evolution_->generation());
  double trials = 0, failed = 0;
  for (const prune::GenerationRecord& record : evolution_->history()) {
    trials += record.trials;
    failed += record.failed_trials;
  }
  values["trials"] = trials;
  values["failed_trials"] = failed;
  AddDocuments(evolution_->parent(), outcomes.front().result(), baselines);
  return Continue(model);
}

void PruneSearchJob::AddDocuments(const prune::Genome& winner, const v1::JobResult& measured,
                                  const std::map<std::string, prune::Genome>& baselines) {
  auto& documents = *result_.mutable_documents();
  Json genome = Json::parse(ToJson(winner));
  if (const auto structure = measured.documents().find("structure"); structure != measured.documents().end()) {
    const Json removed = Json::parse(structure->second, nullptr, /*allow_exceptions=*/false);
    if (removed.is_object()) genome.update(removed);
  }
  documents["genome"] = genome.dump();
  documents["history"] = Json::parse(evolution_->ToJson()).at("history").dump();
  Json others = Json::object();
  for (const auto& [name, levels] : baselines) others[name] = Json::parse(ToJson(levels));
  documents["baselines"] = others.dump();
}

// The model becomes this job's own: trials and their folders may be removed before it.
absl::Status PruneSearchJob::Continue(const std::string& model) {
  std::string folder = model;
  if (search_.continue_training) {
    TY_ASSIGN_OR_RETURN(const std::vector<v1::TrialOutcome> outcomes,
                        RunTrials("continued training", {trials_->Continue(model)}));
    TY_ASSIGN_OR_RETURN(folder, ArtifactOf(outcomes.front(), "model", "continued training"));
    auto& values = *result_.mutable_values();
    if (const auto loss = ValueOf(outcomes.front(), "final_loss")) values["continued_loss"] = *loss;
    if (const auto loss = ValueOf(outcomes.front(), "evaluation_loss")) values["continued_evaluation_loss"] = *loss;
  }
  context_->EnterSection("export");
  const std::string target = JoinPath(context_->place().attempt_dir, "model");
  TY_RETURN_IF_ERROR(MakeDirs(target));
  TY_ASSIGN_OR_RETURN(const std::vector<std::string> files, ListDir(folder));
  int64_t bytes = 0;
  for (const std::string& file : files) {
    context_->ShouldStop();  // says that we live; a copy is short
    std::error_code error;
    std::filesystem::copy_file(JoinPath(folder, file), JoinPath(target, file),
                               std::filesystem::copy_options::overwrite_existing, error);
    if (error) return ErrnoStatus(error.value(), "copy", JoinPath(folder, file));
    bytes += static_cast<int64_t>(std::filesystem::file_size(JoinPath(target, file), error));
  }
  TY_RETURN_IF_ERROR(SyncDir(target));
  v1::Artifact& artifact = *result_.add_artifacts();
  artifact.set_name("model");
  artifact.set_path(target);
  artifact.set_bytes(bytes);
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<Job> MakePruneSearchJob(const spec::JobOptions& options) {
  return std::make_unique<PruneSearchJob>(options);
}

}  // namespace trainyard::jobs
