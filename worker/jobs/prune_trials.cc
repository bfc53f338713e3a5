#include "worker/jobs/prune_trials.h"

#include "absl/strings/str_cat.h"

namespace trainyard::jobs {
namespace {

v1::PruneFloat ProtoOf(spec::PruneFloat format) {
  switch (format) {
    case spec::PruneFloat::kBf16:
      return v1::PRUNE_FLOAT_BF16;
    case spec::PruneFloat::kFp16:
      return v1::PRUNE_FLOAT_FP16;
    case spec::PruneFloat::kFp32:
      return v1::PRUNE_FLOAT_FP32;
  }
  return v1::PRUNE_FLOAT_UNSPECIFIED;
}

v1::PruneFitness ProtoOf(spec::PruneFitness fitness) {
  switch (fitness) {
    case spec::PruneFitness::kKl:
      return v1::PRUNE_FITNESS_KL;
    case spec::PruneFitness::kPerplexity:
      return v1::PRUNE_FITNESS_PERPLEXITY;
    case spec::PruneFitness::kTopKKl:
      return v1::PRUNE_FITNESS_TOP_K_KL;
  }
  return v1::PRUNE_FITNESS_UNSPECIFIED;
}

v1::PruneEnforcement ProtoOf(spec::PruneEnforcement enforcement) {
  switch (enforcement) {
    case spec::PruneEnforcement::kShrink:
      return v1::PRUNE_ENFORCEMENT_SHRINK;
    case spec::PruneEnforcement::kMask:
      return v1::PRUNE_ENFORCEMENT_MASK;
    case spec::PruneEnforcement::kNone:
      return v1::PRUNE_ENFORCEMENT_NONE;
  }
  return v1::PRUNE_ENFORCEMENT_UNSPECIFIED;
}

void Set(const spec::PruneFineTuneOptions& options, v1::PruneFineTune* spec) {
  spec->set_learning_rate(options.learning_rate);
  spec->set_batch_documents(options.batch_documents);
  spec->set_weight_decay(options.weight_decay);
  spec->set_enforcement(ProtoOf(options.enforcement));
  spec->set_master_dtype(ProtoOf(options.master_dtype));
}

}  // namespace

PruneTrials::PruneTrials(const v1::JobSpec& parent, const std::string& model_path, uint64_t seed)
    : training_(parent.training()) {
  *base_.mutable_world() = parent.world();
  if (parent.has_retry()) *base_.mutable_retry() = parent.retry();
  *base_.mutable_model() = parent.model();
  base_.mutable_model()->set_path(model_path);
  *base_.mutable_data() = parent.data();
  base_.set_seed(seed);
}

v1::JobSpec PruneTrials::Task() const {
  v1::JobSpec spec = base_;
  spec.mutable_world()->set_min(1);
  spec.mutable_world()->set_max(1);
  return spec;
}

v1::JobSpec PruneTrials::Calibrate(int64_t tokens) const {
  v1::JobSpec spec = base_;
  spec.mutable_prune_task()->mutable_calibrate()->set_tokens(tokens);
  return spec;
}

v1::JobSpec PruneTrials::Layers(const std::string& hessians, int64_t block, spec::PruneModule module,
                                const std::vector<int32_t>& removed_columns, const spec::PruneDatabaseOptions& database,
                                bool by_magnitude) const {
  v1::JobSpec spec = Task();
  v1::PruneLayers& layers = *spec.mutable_prune_task()->mutable_layers();
  layers.set_hessians(hessians);
  layers.set_block(static_cast<int32_t>(block));
  layers.set_module(module == spec::PruneModule::kAttention ? v1::PRUNE_MODULE_ATTENTION : v1::PRUNE_MODULE_MLP);
  for (int32_t removed : removed_columns) layers.add_removed_columns(removed);
  layers.set_relative_damping(database.relative_damping);
  layers.set_store_dtype(ProtoOf(database.store_dtype));
  layers.set_by_magnitude(by_magnitude);
  return spec;
}

v1::JobSpec PruneTrials::Candidate(const std::string& database, const prune::Genome& genome,
                                   const spec::PruneStageOptions& stage, int64_t draw,
                                   const spec::PruneSearchRules& rules, bool prune_kv_heads) const {
  v1::JobSpec spec = Task();
  v1::PruneCandidate& candidate = *spec.mutable_prune_task()->mutable_candidate();
  candidate.set_database(database);
  for (int32_t level : genome.attention) candidate.add_attention_levels(level);
  for (int32_t level : genome.mlp) candidate.add_mlp_levels(level);
  candidate.set_draw(draw);
  candidate.set_train_tokens(stage.train_tokens);
  candidate.set_evaluation_tokens(stage.evaluation_tokens);
  candidate.set_train_pool_tokens(rules.train_pool_tokens);
  candidate.set_evaluation_pool_tokens(rules.evaluation_pool_tokens);
  candidate.set_fitness(ProtoOf(rules.fitness));
  if (rules.fitness == spec::PruneFitness::kTopKKl) candidate.set_kl_top_k(rules.kl_top_k);
  Set(rules.fine_tune, candidate.mutable_fine_tune());
  candidate.set_prune_kv_heads(prune_kv_heads);
  return spec;
}

v1::JobSpec PruneTrials::Continue(const std::string& model) const {
  v1::JobSpec spec = base_;
  spec.mutable_model()->set_path(model);
  *spec.mutable_training() = training_;
  spec.mutable_pretrain();
  return spec;
}

absl::StatusOr<std::string> ArtifactOf(const v1::TrialOutcome& outcome, const std::string& name,
                                       const std::string& what) {
  if (outcome.state() != v1::JOB_STATE_SUCCEEDED) {
    return absl::FailedPreconditionError(
        absl::StrCat(what, ": job ", outcome.job_uid(), " failed: ", outcome.exit().message()));
  }
  for (const v1::Artifact& artifact : outcome.result().artifacts()) {
    if (artifact.name() == name) return artifact.path();
  }
  return absl::FailedPreconditionError(absl::StrCat(what, ": job ", outcome.job_uid(), " left no artifact ", name));
}

std::optional<double> ValueOf(const v1::TrialOutcome& outcome, const std::string& name) {
  if (outcome.state() != v1::JOB_STATE_SUCCEEDED) return std::nullopt;
  const auto found = outcome.result().values().find(name);
  if (found == outcome.result().values().end()) return std::nullopt;
  return found->second;
}

}  // namespace trainyard::jobs
