#include "proto/spec/study_expand.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/overloaded.h"
#include "proto/rpc/error_details.h"
#include "proto/spec/field_errors.h"

namespace trainyard::spec {
namespace {

constexpr int32_t kAllBatches = 1'000'000;
constexpr int64_t kTooManySteps = 1'000'000'000'000;  // beyond any valid number, within any integer

int64_t TokensPerStep(const JobOptions& options) {
  return int64_t{options.training.micro_batch} * options.training.accumulation * options.data.sequence_length *
         options.world.max;
}

int64_t StepsOf(const StudySize& size, double tokens_per_parameter, const JobOptions& options) {
  const double steps = std::ceil(StudyTokens(size, tokens_per_parameter) / static_cast<double>(TokensPerStep(options)));
  return static_cast<int64_t>(std::clamp(steps, 1.0, static_cast<double>(kTooManySteps)));
}

int64_t FewestSteps(const StudyOptions& study, const JobOptions& options) {
  int64_t fewest = std::numeric_limits<int64_t>::max();
  for (const StudySize& size : study.sizes) {
    for (const double ratio : study.tokens_per_parameter) fewest = std::min(fewest, StepsOf(size, ratio, options));
  }
  return fewest;
}

double RateFactor(const StudyOptions& study, const StudySize& size) {
  const StudySize& first = study.sizes.front();
  switch (study.rate_rule) {
    case StudyRateRule::kInverseParameters:
      return static_cast<double>(NonEmbeddingParameters(first.shape)) /
             static_cast<double>(NonEmbeddingParameters(size.shape));
    case StudyRateRule::kInverseWidth:
      return static_cast<double>(first.shape.hidden_size) / size.shape.hidden_size;
    case StudyRateRule::kSame:
      return 1;
  }
  return 1;
}

void ScaleRates(double factor, v1::Optimizer* spec) {
  FieldErrors ignored;  // ParseJob and ParseStudy have seen these messages
  const OptimizerOptions optimizer = ParseOptimizer(*spec, ignored);
  std::visit(
      Overloaded{
          [&](const AdamWOptions& o) { spec->mutable_adamw()->set_learning_rate(factor * o.learning_rate); },
          [&](const SgdOptions& o) { spec->mutable_sgd()->set_learning_rate(factor * o.learning_rate); },
          [&](const EcoOptions& o) { spec->mutable_eco()->set_learning_rate(factor * o.learning_rate); },
          [&](const DctAdamWOptions& o) { spec->mutable_dct_adamw()->set_learning_rate(factor * o.learning_rate); },
          [&](const TrionOptions& o) {
            spec->mutable_trion()->set_learning_rate(factor * o.learning_rate);
            spec->mutable_trion()->set_adam_learning_rate(factor * o.adam_learning_rate);
          },
          [&](const ElsaOptions& o) { spec->mutable_elsa()->set_learning_rate(factor * o.learning_rate); },
      },
      optimizer);
}

void SetShape(const LlamaShape& shape, v1::ModelSpec* model) {
  v1::LlamaShape& spec = *model->mutable_shape();
  spec.Clear();
  spec.set_vocab_size(shape.vocab_size);
  spec.set_hidden_size(shape.hidden_size);
  spec.set_intermediate_size(shape.intermediate_size);
  spec.set_num_hidden_layers(shape.num_hidden_layers);
  spec.set_num_attention_heads(shape.num_attention_heads);
  spec.set_num_key_value_heads(shape.num_key_value_heads);
  spec.set_head_dim(shape.head_dim);
  spec.set_rope_theta(shape.rope_theta);
  spec.set_rms_norm_eps(shape.rms_norm_eps);
  spec.set_attention_bias(shape.attention_bias);
  spec.set_tie_word_embeddings(shape.tie_word_embeddings);
  spec.set_max_position_embeddings(shape.max_position_embeddings);
}

// What all trainings have of the job.
v1::JobSpec CommonSpec(const v1::JobSpec& job) {
  v1::JobSpec spec;
  if (job.has_world()) *spec.mutable_world() = job.world();
  if (job.has_retry()) *spec.mutable_retry() = job.retry();
  if (job.has_exit_policy()) *spec.mutable_exit_policy() = job.exit_policy();
  if (job.has_checkpoint()) *spec.mutable_checkpoint() = job.checkpoint();
  if (job.has_ttl_after_finish()) *spec.mutable_ttl_after_finish() = job.ttl_after_finish();
  if (job.has_stop_grace()) *spec.mutable_stop_grace() = job.stop_grace();
  if (job.has_lost_after()) *spec.mutable_lost_after() = job.lost_after();
  if (job.has_hang()) *spec.mutable_hang() = job.hang();
  if (job.has_communication()) *spec.mutable_communication() = job.communication();
  spec.mutable_model()->set_dtype(job.model().dtype());
  *spec.mutable_data() = job.data();
  *spec.mutable_training() = job.training();
  spec.mutable_training()->mutable_evaluation()->set_interval_steps(0);
  spec.mutable_training()->mutable_evaluation()->set_batches(kAllBatches);
  spec.mutable_pretrain();
  return spec;
}

class Expansion {
 public:
  Expansion(const v1::JobSpec& job, const JobOptions& options)
      : job_(job),
        options_(options),
        study_(std::get<StudyOptions>(options.kind)),
        common_(CommonSpec(job)),
        fewest_steps_(FewestSteps(study_, options)) {}

  StudyTraining Make(int size_index, int ratio_index, int recipe_index, uint64_t seed) const {
    const StudySize& size = study_.sizes[static_cast<size_t>(size_index)];
    const double ratio = study_.tokens_per_parameter[static_cast<size_t>(ratio_index)];
    const v1::StudyRecipe& recipe = job_.study().recipes(recipe_index);
    StudyTraining training;
    training.spec = common_;
    training.size = size_index;
    training.ratio = ratio_index;
    training.recipe = recipe_index;
    training.seed = seed;
    training.parameters = NonEmbeddingParameters(size.shape);
    training.steps = StepsOf(size, ratio, options_);
    training.tokens = training.steps * TokensPerStep(options_);

    v1::JobSpec& spec = training.spec;
    SetShape(size.shape, spec.mutable_model());
    v1::TrainingSpec& sections = *spec.mutable_training();
    sections.set_steps(training.steps);
    if (recipe.has_linear()) *sections.mutable_linear() = recipe.linear();
    if (recipe.has_optimizer()) *sections.mutable_optimizer() = recipe.optimizer();
    ScaleRates(RateFactor(study_, size), sections.mutable_optimizer());
    if (const int64_t warmup = options_.training.schedule.warmup_steps; warmup > 0) {
      const double fraction = static_cast<double>(warmup) / static_cast<double>(fewest_steps_);
      sections.mutable_schedule()->set_warmup_steps(std::llround(fraction * static_cast<double>(training.steps)));
    }
    spec.set_seed(seed);
    auto& labels = *spec.mutable_labels();
    if (!job_.name().empty()) labels["study"] = job_.name();
    labels["size"] = size.name;
    labels["ratio"] = absl::StrCat(ratio);
    labels["recipe"] = recipe.name();
    labels["seed"] = absl::StrCat(seed);
    return training;
  }

  int64_t fewest_steps() const { return fewest_steps_; }
  const StudyOptions& study() const { return study_; }

 private:
  const v1::JobSpec& job_;
  const JobOptions& options_;
  const StudyOptions& study_;
  const v1::JobSpec common_;
  const int64_t fewest_steps_;
};

}  // namespace

std::vector<StudyTraining> ExpandStudy(const v1::JobSpec& spec, const JobOptions& options) {
  const Expansion expansion(spec, options);
  const StudyOptions& study = expansion.study();
  std::vector<StudyTraining> trainings;
  for (size_t size = 0; size < study.sizes.size(); ++size) {
    for (size_t ratio = 0; ratio < study.tokens_per_parameter.size(); ++ratio) {
      for (size_t recipe = 0; recipe < study.recipes.size(); ++recipe) {
        for (const uint64_t seed : study.seeds) {
          trainings.push_back(
              expansion.Make(static_cast<int>(size), static_cast<int>(ratio), static_cast<int>(recipe), seed));
        }
      }
    }
  }
  return trainings;
}

void CheckStudyTrainings(const v1::JobSpec& spec, const JobOptions& options, FieldErrors& errors) {
  const Expansion expansion(spec, options);
  const StudyOptions& study = expansion.study();
  const int64_t count = static_cast<int64_t>(study.sizes.size() * study.tokens_per_parameter.size()) *
                        static_cast<int64_t>(study.recipes.size() * study.seeds.size());
  if (count > kMaxStudyTrainings) {
    errors.Add("study", absl::StrCat(count, " trainings (sizes, ratios, recipes and seeds), at most ",
                                     kMaxStudyTrainings, " allowed"));
  }
  const int64_t warmup = options.training.schedule.warmup_steps;
  if (warmup > expansion.fewest_steps()) {
    errors.Add("training.schedule.warmup_steps", absl::StrCat(warmup, " is more than the ", expansion.fewest_steps(),
                                                              " steps of the study's shortest training"));
    return;
  }
  std::set<std::string> seen;  // a problem of all recipes is told once
  for (size_t recipe = 0; recipe < study.recipes.size(); ++recipe) {
    const bool has_own = spec.study().recipes(static_cast<int>(recipe)).has_linear() ||
                         spec.study().recipes(static_cast<int>(recipe)).has_optimizer();
    for (size_t size = 0; size < study.sizes.size(); ++size) {
      // The fewest steps are the strictest, but for the limit of the steps themselves.
      for (const size_t ratio : std::set<size_t>{0, study.tokens_per_parameter.size() - 1}) {
        const StudyTraining training =
            expansion.Make(static_cast<int>(size), static_cast<int>(ratio), static_cast<int>(recipe), study.seeds[0]);
        for (const FieldViolation& violation : GetFieldViolations(ParseJob(training.spec).status())) {
          const std::string text =
              absl::StrCat("with size '", study.sizes[size].name, "': ", violation.path, ": ", violation.text);
          if (!seen.insert(text).second) continue;
          errors.Add(has_own ? absl::StrCat("study.recipes[", recipe, "]") : absl::StrCat("study.sizes[", size, "]"),
                     text);
        }
      }
    }
  }
}

}  // namespace trainyard::spec
