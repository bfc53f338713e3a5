#include "proto/spec/prune_search_options.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "proto/spec/choice.h"
#include "proto/spec/field_errors.h"
#include "proto/v1/prune_search.pb.h"

namespace trainyard::spec {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 40;
constexpr size_t kMaxLevels = 256;

std::vector<int32_t> ParseLevels(const google::protobuf::RepeatedField<int32_t>& field, const char* name,
                                 FieldErrors& errors) {
  std::vector<int32_t> levels(field.begin(), field.end());
  if (levels.empty()) return levels;
  if (levels.size() < 2 || levels.size() > kMaxLevels) {
    errors.Add(name, absl::StrCat(levels.size(), " levels not in [2, ", kMaxLevels, "]"));
  } else if (levels.front() != 0) {
    errors.Add(absl::StrCat(name, "[0]"), absl::StrCat(levels.front(), " is not 0, the module as it is"));
  }
  for (size_t i = 1; i < levels.size(); ++i) {
    if (levels[i] <= levels[i - 1]) {
      errors.Add(absl::StrCat(name, "[", i, "]"),
                 absl::StrCat(levels[i], " is not more than ", levels[i - 1], ": levels must increase"));
      break;
    }
  }
  return levels;
}

PruneFloat ParseFloat(FieldErrors& errors, const char* name, v1::PruneFloat value, PruneFloat if_unset) {
  if (value == v1::PRUNE_FLOAT_UNSPECIFIED) return if_unset;
  return Choose<v1::PruneFloat, PruneFloat>(errors, name, value,
                                            {{v1::PRUNE_FLOAT_BF16, PruneFloat::kBf16},
                                             {v1::PRUNE_FLOAT_FP16, PruneFloat::kFp16},
                                             {v1::PRUNE_FLOAT_FP32, PruneFloat::kFp32}});
}

PruneFitness ParseFitness(FieldErrors& errors, v1::PruneFitness value) {
  return Choose<v1::PruneFitness, PruneFitness>(errors, "fitness", value,
                                                {{v1::PRUNE_FITNESS_KL, PruneFitness::kKl},
                                                 {v1::PRUNE_FITNESS_PERPLEXITY, PruneFitness::kPerplexity},
                                                 {v1::PRUNE_FITNESS_TOP_K_KL, PruneFitness::kTopKKl}});
}

PruneFineTuneOptions ParseFineTune(const v1::PruneFineTune& spec, FieldErrors errors) {
  PruneFineTuneOptions options;
  if (spec.has_learning_rate()) {
    options.learning_rate = errors.InRangeAbove("learning_rate", spec.learning_rate(), 0, 1);
  }
  if (spec.has_batch_documents()) {
    options.batch_documents = errors.InRange("batch_documents", spec.batch_documents(), 1, 65'536);
  }
  if (spec.has_weight_decay()) options.weight_decay = errors.InRange("weight_decay", spec.weight_decay(), 0, 10);
  options.enforcement =
      Choose<v1::PruneEnforcement, PruneEnforcement>(errors, "enforcement", spec.enforcement(),
                                                     {{v1::PRUNE_ENFORCEMENT_SHRINK, PruneEnforcement::kShrink},
                                                      {v1::PRUNE_ENFORCEMENT_MASK, PruneEnforcement::kMask},
                                                      {v1::PRUNE_ENFORCEMENT_NONE, PruneEnforcement::kNone}});
  options.master_dtype = ParseFloat(errors, "master_dtype", spec.master_dtype(), PruneFloat::kFp32);
  if (options.master_dtype == PruneFloat::kFp16) errors.Add("master_dtype", "fp16 is not one of fp32, bf16");
  return options;
}

std::vector<PruneStageOptions> ParseStages(const v1::PruneSearch& spec, int32_t offspring, FieldErrors& errors) {
  constexpr int kMaxStages = 16;
  if (spec.stages().empty()) {
    return {{std::min(8, offspring), 10'000, 1024},
            {std::min(4, offspring), 50'000, 2048},
            {std::min(2, offspring), 100'000, 4096},
            {1, 200'000, 8192}};
  }
  if (spec.stages_size() > kMaxStages) {
    errors.Add("stages", absl::StrCat(spec.stages_size(), " stages not in [1, ", kMaxStages, "]"));
  }
  std::vector<PruneStageOptions> stages;
  int32_t before = offspring;
  for (int i = 0; i < spec.stages_size(); ++i) {
    const v1::PruneStage& given = spec.stages(i);
    FieldErrors inner = errors.In(absl::StrCat("stages[", i, "]"));
    PruneStageOptions stage;
    if (!given.has_survivors()) {
      inner.Add("survivors", absl::StrCat("missing; give a value in [1, ", before, "]"));
    } else {
      stage.survivors = inner.InRange("survivors", given.survivors(), 1, before);
    }
    if (given.has_train_tokens()) {
      stage.train_tokens = inner.InRange("train_tokens", given.train_tokens(), 0, kMaxTokens);
    }
    if (!given.has_evaluation_tokens()) {
      inner.Add("evaluation_tokens", "missing; give the tokens that fitness is measured on");
    } else {
      stage.evaluation_tokens = inner.InRange("evaluation_tokens", given.evaluation_tokens(), 1, kMaxTokens);
    }
    if (i + 1 == spec.stages_size() && stage.survivors != 1) {
      inner.Add("survivors", absl::StrCat(stage.survivors, " is not 1, which the last stage leaves"));
    }
    before = stage.survivors;
    stages.push_back(stage);
  }
  return stages;
}

PruneDatabaseOptions ParseDatabase(const v1::PruneDatabase& spec, FieldErrors errors) {
  PruneDatabaseOptions options;
  options.levels_attention = ParseLevels(spec.levels_attention(), "levels_attention", errors);
  options.levels_mlp = ParseLevels(spec.levels_mlp(), "levels_mlp", errors);
  if (!options.levels_attention.empty() && !options.levels_mlp.empty()) {
    if (options.levels_attention.size() != options.levels_mlp.size()) {
      errors.Add("levels_mlp", absl::StrCat(options.levels_mlp.size(), " levels, but levels_attention has ",
                                            options.levels_attention.size()));
    }
    if (spec.has_levels()) errors.Add("levels", "has no effect beside levels_attention and levels_mlp");
  } else if (!options.levels_attention.empty() || !options.levels_mlp.empty()) {
    errors.Add(options.levels_mlp.empty() ? "levels_mlp" : "levels_attention", "missing; give both lists or neither");
  }
  if (spec.has_levels()) {
    options.levels = errors.InRange("levels", spec.levels(), 2, static_cast<int32_t>(kMaxLevels));
  } else if (!options.levels_attention.empty()) {
    options.levels = static_cast<int32_t>(options.levels_attention.size());
  }
  if (spec.has_calibration_tokens()) {
    options.calibration_tokens = errors.InRange("calibration_tokens", spec.calibration_tokens(), 1, kMaxTokens);
  }
  if (spec.has_sequence_length()) errors.Add("sequence_length", "give data.sequence_length, which the search uses");
  if (spec.has_relative_damping()) {
    options.relative_damping = errors.InRange("relative_damping", spec.relative_damping(), 0, 1);
  }
  options.store_dtype = ParseFloat(errors, "store_dtype", spec.store_dtype(), PruneFloat::kBf16);
  if (spec.has_prune_kv_heads()) options.prune_kv_heads = spec.prune_kv_heads();
  return options;
}

PruneSearchRules ParseSearch(const v1::PruneSearch& spec, int32_t levels, FieldErrors errors) {
  PruneSearchRules options;
  switch (spec.target_case()) {
    case v1::PruneSearch::kTargetLevel:
      options.target_level = errors.InRange("target_level", spec.target_level(), 0, levels - 1);
      break;
    case v1::PruneSearch::kTargetParameters:
      options.target_parameters = errors.InRange("target_parameters", spec.target_parameters(), 1, kMaxTokens);
      break;
    case v1::PruneSearch::TARGET_NOT_SET:
      options.target_level = (levels - 1) / 2;
      break;
  }
  if (spec.has_generations()) options.generations = errors.InRange("generations", spec.generations(), 1, 1'000'000);
  if (spec.has_offspring()) options.offspring = errors.InRange("offspring", spec.offspring(), 1, 100'000);
  options.stages = ParseStages(spec, options.offspring, errors);
  if (spec.has_max_flips()) options.max_flips = errors.InRange("max_flips", spec.max_flips(), 1, 1000);
  options.fitness = ParseFitness(errors, spec.fitness());
  if (spec.has_kl_top_k()) options.kl_top_k = errors.InRange("kl_top_k", spec.kl_top_k(), 1, 10'000'000);
  options.fine_tune = ParseFineTune(spec.fine_tune(), errors.In("fine_tune"));
  if (spec.has_resample()) options.resample = spec.resample();
  if (spec.has_parameters_tolerance()) {
    options.parameters_tolerance = errors.InRange("parameters_tolerance", spec.parameters_tolerance(), 0, 1);
  }
  if (spec.has_train_pool_tokens()) {
    options.train_pool_tokens = errors.InRange("train_pool_tokens", spec.train_pool_tokens(), 1, kMaxTokens);
  }
  if (spec.has_evaluation_pool_tokens()) {
    options.evaluation_pool_tokens =
        errors.InRange("evaluation_pool_tokens", spec.evaluation_pool_tokens(), 1, kMaxTokens);
  }
  for (size_t i = 0; i < options.stages.size(); ++i) {
    const PruneStageOptions& stage = options.stages[i];
    FieldErrors inner = errors.In(absl::StrCat("stages[", i, "]"));
    if (stage.train_tokens > options.train_pool_tokens) {
      inner.Add("train_tokens",
                absl::StrCat(stage.train_tokens, " is more than train_pool_tokens ", options.train_pool_tokens));
    }
    if (stage.evaluation_tokens > options.evaluation_pool_tokens) {
      inner.Add("evaluation_tokens", absl::StrCat(stage.evaluation_tokens, " is more than evaluation_pool_tokens ",
                                                  options.evaluation_pool_tokens));
    }
  }
  return options;
}

PruneModule ParseModule(FieldErrors& errors, v1::PruneModule value) {
  if (value == v1::PRUNE_MODULE_UNSPECIFIED) errors.Add("module", "missing; give attention or mlp");
  return Choose<v1::PruneModule, PruneModule>(
      errors, "module", value,
      {{v1::PRUNE_MODULE_ATTENTION, PruneModule::kAttention}, {v1::PRUNE_MODULE_MLP, PruneModule::kMlp}});
}

PruneLayersTask ParseLayers(const v1::PruneLayers& spec, FieldErrors errors) {
  PruneLayersTask task;
  task.hessians = spec.hessians();
  if (task.hessians.empty()) errors.Add("hessians", "missing; give the folder that a calibrate task made");
  task.block = errors.InRange("block", spec.block(), 0, 1'000'000);
  task.module = ParseModule(errors, spec.module());
  task.removed_columns = ParseLevels(spec.removed_columns(), "removed_columns", errors);
  if (spec.removed_columns().empty()) errors.Add("removed_columns", "missing; give the levels");
  if (spec.has_relative_damping()) {
    task.relative_damping = errors.InRange("relative_damping", spec.relative_damping(), 0, 1);
  }
  task.store_dtype = ParseFloat(errors, "store_dtype", spec.store_dtype(), PruneFloat::kBf16);
  task.by_magnitude = spec.by_magnitude();
  return task;
}

std::vector<int32_t> ParseGenome(const google::protobuf::RepeatedField<int32_t>& field, const char* name,
                                 FieldErrors& errors) {
  std::vector<int32_t> levels(field.begin(), field.end());
  if (levels.empty()) errors.Add(name, "missing; give a level for each block");
  for (int32_t& level : levels) level = errors.InRange(name, level, 0, static_cast<int32_t>(kMaxLevels) - 1);
  return levels;
}

PruneCandidateTask ParseCandidate(const v1::PruneCandidate& spec, FieldErrors errors) {
  PruneCandidateTask task;
  task.database = spec.database();
  if (task.database.empty()) errors.Add("database", "missing; give the index file of a database");
  task.attention_levels = ParseGenome(spec.attention_levels(), "attention_levels", errors);
  task.mlp_levels = ParseGenome(spec.mlp_levels(), "mlp_levels", errors);
  if (task.attention_levels.size() != task.mlp_levels.size()) {
    errors.Add("mlp_levels", absl::StrCat(task.mlp_levels.size(), " levels, but attention_levels has ",
                                          task.attention_levels.size()));
  }
  task.draw = errors.InRange("draw", spec.draw(), 0, kMaxTokens);
  task.train_tokens = errors.InRange("train_tokens", spec.train_tokens(), 0, kMaxTokens);
  task.evaluation_tokens = errors.InRange("evaluation_tokens", spec.evaluation_tokens(), 1, kMaxTokens);
  task.train_pool_tokens = errors.InRange("train_pool_tokens", spec.train_pool_tokens(),
                                          std::max<int64_t>(1, task.train_tokens), kMaxTokens);
  task.evaluation_pool_tokens =
      errors.InRange("evaluation_pool_tokens", spec.evaluation_pool_tokens(), task.evaluation_tokens, kMaxTokens);
  task.fitness = ParseFitness(errors, spec.fitness());
  if (spec.kl_top_k() != 0) task.kl_top_k = errors.InRange("kl_top_k", spec.kl_top_k(), 1, 10'000'000);
  task.fine_tune = ParseFineTune(spec.fine_tune(), errors.In("fine_tune"));
  task.prune_kv_heads = spec.prune_kv_heads();
  task.export_model = spec.export_model();
  task.perplexity_batches = errors.InRange("perplexity_batches", spec.perplexity_batches(), 0, 1'000'000);
  return task;
}

}  // namespace

PruneSearchOptions ParsePruneSearch(const v1::PruneSearchSpec& spec, bool has_training, FieldErrors& errors) {
  PruneSearchOptions options;
  options.database = ParseDatabase(spec.database(), errors.In("database"));
  options.search = ParseSearch(spec.search(), options.database.levels, errors.In("search"));
  for (int i = 0; i < spec.baselines_size(); ++i) {
    const std::string name = absl::StrCat("baselines[", i, "]");
    const PruneBaseline baseline =
        Choose<v1::PruneBaseline, PruneBaseline>(errors, name, static_cast<v1::PruneBaseline>(spec.baselines(i)),
                                                 {{v1::PRUNE_BASELINE_UNIFORM, PruneBaseline::kUniform},
                                                  {v1::PRUNE_BASELINE_SPDY, PruneBaseline::kSpdy},
                                                  {v1::PRUNE_BASELINE_MAGNITUDE, PruneBaseline::kMagnitude},
                                                  {v1::PRUNE_BASELINE_DEPTH, PruneBaseline::kDepth}});
    if (std::find(options.baselines.begin(), options.baselines.end(), baseline) != options.baselines.end()) {
      errors.Add(name, "named twice");
    }
    options.baselines.push_back(baseline);
  }
  options.continue_training = spec.has_continue_training() ? spec.continue_training() : has_training;
  if (options.continue_training && !has_training) {
    errors.Add("continue_training", "true needs the job's section training");
  }
  if (spec.has_evaluation_batches()) {
    options.evaluation_batches = errors.InRange("evaluation_batches", spec.evaluation_batches(), 1, 1'000'000);
  }
  return options;
}

PruneTaskOptions ParsePruneTask(const v1::PruneTaskSpec& spec, FieldErrors& errors) {
  switch (spec.task_case()) {
    case v1::PruneTaskSpec::kCalibrate: {
      PruneCalibrateTask task;
      if (spec.calibrate().has_tokens()) {
        task.tokens = errors.InRange("calibrate.tokens", spec.calibrate().tokens(), 1, kMaxTokens);
      } else {
        errors.Add("calibrate.tokens", "missing; give the tokens to calibrate on");
      }
      return {task};
    }
    case v1::PruneTaskSpec::kLayers:
      return {ParseLayers(spec.layers(), errors.In("layers"))};
    case v1::PruneTaskSpec::kCandidate:
      return {ParseCandidate(spec.candidate(), errors.In("candidate"))};
    case v1::PruneTaskSpec::TASK_NOT_SET:
      break;
  }
  errors.Add("", "missing; give one of calibrate, layers, candidate");
  return {};
}

std::vector<int32_t> LevelsOf(const std::vector<int32_t>& given, int32_t levels, int32_t columns, int32_t group,
                              const char* name, FieldErrors& errors) {
  std::vector<int32_t> result = given;
  if (result.empty()) {
    const int32_t groups = columns / group;
    if (levels > groups + 1) {
      errors.Add(name, absl::StrCat(levels, " levels need at least ", levels - 1, " groups of ", group,
                                    " columns, the model has ", groups));
      return {0, columns};
    }
    for (int32_t level = 0; level < levels; ++level) {
      result.push_back(static_cast<int32_t>((int64_t{groups} * level + (levels - 1) / 2) / (levels - 1)) * group);
    }
    return result;
  }
  for (size_t i = 0; i < result.size(); ++i) {
    if (result[i] % group != 0) {
      errors.Add(absl::StrCat(name, "[", i, "]"),
                 absl::StrCat(result[i], " is not a multiple of the model's head_dim ", group));
    }
  }
  if (result.back() != columns) {
    errors.Add(name,
               absl::StrCat("the last level removes ", result.back(), " columns, not all ", columns, " of the model"));
  }
  return result;
}

}  // namespace trainyard::spec
