#include "proto/spec/select_data_options.h"

#include "absl/strings/str_cat.h"
#include "proto/spec/choice.h"
#include "proto/spec/field_errors.h"
#include "proto/spec/patterns.h"
#include "proto/v1/select_data.pb.h"

namespace trainyard::spec {
namespace {

SelectionWarmupOptions ParseWarmup(const v1::SelectionWarmup& spec, FieldErrors errors) {
  SelectionWarmupOptions options;
  if (spec.has_fraction()) options.fraction = errors.InRange("fraction", spec.fraction(), 0, 1);
  if (spec.has_epochs()) options.epochs = errors.InRange("epochs", spec.epochs(), 0, 20);
  if (spec.has_learning_rate()) {
    options.learning_rate = errors.InRangeAbove("learning_rate", spec.learning_rate(), 0, 1e-2);
  }
  if (spec.has_batch()) options.batch = errors.InRange("batch", spec.batch(), 1, 65'536);
  return options;
}

SelectionEmbeddingOptions ParseEmbedding(const v1::SelectionEmbedding& spec, FieldErrors errors) {
  SelectionEmbeddingOptions options;
  if (spec.has_blocks()) options.blocks = errors.InRange("blocks", spec.blocks(), 1, 1024);
  if (spec.has_tangents()) options.tangents = errors.InRange("tangents", spec.tangents(), 1, 16);
  if (spec.has_projection_dim()) {
    options.projection_dim = errors.InRange("projection_dim", spec.projection_dim(), 64, 65'536);
  }
  if (spec.has_seed()) options.seed = spec.seed();
  return options;
}

SelectionGradientOptions ParseGradients(const v1::SelectionGradients& spec, FieldErrors errors) {
  SelectionGradientOptions options;
  if (spec.parameters_size() > 0) options.parameters = ParsePatterns(spec.parameters(), "parameters", errors);
  if (spec.has_mask_elements()) {
    options.mask_elements = errors.InRange("mask_elements", spec.mask_elements(), 0, int64_t{1} << 40);
  }
  if (spec.has_projection_dim()) {
    options.projection_dim = errors.InRange("projection_dim", spec.projection_dim(), 64, 131'072);
  }
  options.projection = Choose<v1::SelectionProjection, SelectionProjection>(
      errors, "projection", spec.projection(),
      {{v1::SELECTION_PROJECTION_HADAMARD, SelectionProjection::kHadamard},
       {v1::SELECTION_PROJECTION_RADEMACHER, SelectionProjection::kRademacher},
       {v1::SELECTION_PROJECTION_NONE, SelectionProjection::kNone}});
  if (spec.optimizer_scale() != v1::SELECTION_SCALE_UNSPECIFIED) {
    options.optimizer_scale =
        Choose<v1::SelectionScale, SelectionScale>(errors, "optimizer_scale", spec.optimizer_scale(),
                                                   {{v1::SELECTION_SCALE_NONE, SelectionScale::kNone},
                                                    {v1::SELECTION_SCALE_SGD, SelectionScale::kSgd},
                                                    {v1::SELECTION_SCALE_ADAM, SelectionScale::kAdam}});
  }
  return options;
}

SelectionLandmarkOptions ParseLandmarks(const v1::SelectionLandmarks& spec, FieldErrors errors) {
  SelectionLandmarkOptions options;
  if (spec.has_count()) options.count = errors.InRange("count", spec.count(), 1, 1'000'000);
  options.strategy = Choose<v1::SelectionLandmarks::Strategy, LandmarkStrategy>(
      errors, "strategy", spec.strategy(),
      {{v1::SelectionLandmarks::STRATEGY_UNIFORM, LandmarkStrategy::kUniform},
       {v1::SelectionLandmarks::STRATEGY_KMEANS_PP, LandmarkStrategy::kKmeansPlusPlus}});
  if (spec.has_seed()) options.seed = spec.seed();
  return options;
}

SelectionPropagationOptions ParsePropagation(const v1::SelectionPropagation& spec, FieldErrors errors) {
  SelectionPropagationOptions options;
  options.kernel = Choose<v1::SelectionPropagation::Kernel, RegressionKernel>(
      errors, "kernel", spec.kernel(),
      {{v1::SelectionPropagation::KERNEL_RBF, RegressionKernel::kRbf},
       {v1::SelectionPropagation::KERNEL_LINEAR, RegressionKernel::kLinear}});
  if (spec.has_damping()) options.damping = errors.InRangeAbove("damping", spec.damping(), 0, 10);
  if (spec.has_sigma()) options.sigma = errors.InRange("sigma", spec.sigma(), 0, 1e9);
  return options;
}

SelectionWeightOptions ParseWeights(const v1::SelectionWeights& spec, FieldErrors errors) {
  SelectionWeightOptions options;
  options.lambda_rule = Choose<v1::SelectionWeights::LambdaRule, LambdaRule>(
      errors, "lambda_rule", spec.lambda_rule(),
      {{v1::SelectionWeights::LAMBDA_RULE_SUPPORT, LambdaRule::kSupport},
       {v1::SelectionWeights::LAMBDA_RULE_FIXED, LambdaRule::kFixed},
       {v1::SelectionWeights::LAMBDA_RULE_EFFECTIVE_SIZE, LambdaRule::kEffectiveSize}});
  if (options.lambda_rule == LambdaRule::kFixed) {
    if (spec.has_lambda()) {
      options.lambda = errors.InRangeAbove("lambda", spec.lambda(), 0, 1e12);
    } else {
      errors.Add("lambda", "missing; lambda_rule fixed needs a value in (0, 1e12]");
    }
  } else if (spec.has_lambda()) {
    errors.Add("lambda", "has no effect unless lambda_rule is fixed");
  }
  if (spec.has_maximum()) options.maximum = errors.InRange("maximum", spec.maximum(), 1, 1e12);
  if (spec.has_second_order()) options.second_order = spec.second_order();
  return options;
}

}  // namespace

SelectDataOptions ParseSelectData(const v1::SelectDataSpec& spec, FieldErrors& errors) {
  SelectDataOptions options;
  options.method =
      Choose<v1::SelectionMethod, SelectionMethod>(errors, "method", spec.method(),
                                                   {{v1::SELECTION_METHOD_INFLUENCE, SelectionMethod::kInfluence},
                                                    {v1::SELECTION_METHOD_EXACT, SelectionMethod::kExact},
                                                    {v1::SELECTION_METHOD_RDS_PLUS, SelectionMethod::kRdsPlus},
                                                    {v1::SELECTION_METHOD_LESS, SelectionMethod::kLess},
                                                    {v1::SELECTION_METHOD_RANDOM, SelectionMethod::kRandom},
                                                    {v1::SELECTION_METHOD_FULL, SelectionMethod::kFull}});
  options.pool = spec.pool();
  if (options.pool.empty()) errors.Add("pool", "missing; give a folder made by 'trainyard data samples'");
  options.target = spec.target();
  if (options.target.empty()) errors.Add("target", "missing; give a folder made by 'trainyard data samples'");
  if (spec.has_count()) options.count = errors.InRange("count", spec.count(), 1, int64_t{1} << 40);
  options.warmup = ParseWarmup(spec.warmup(), errors.In("warmup"));
  options.embedding = ParseEmbedding(spec.embedding(), errors.In("embedding"));
  options.gradients = ParseGradients(spec.gradients(), errors.In("gradients"));
  options.landmarks = ParseLandmarks(spec.landmarks(), errors.In("landmarks"));
  options.propagation = ParsePropagation(spec.propagation(), errors.In("propagation"));
  options.rule = Choose<v1::SelectionRule, SelectionRule>(errors, "rule", spec.rule(),
                                                          {{v1::SELECTION_RULE_ROUND_ROBIN, SelectionRule::kRoundRobin},
                                                           {v1::SELECTION_RULE_TOP_MEAN, SelectionRule::kTopMean},
                                                           {v1::SELECTION_RULE_TOP_MAX, SelectionRule::kTopMax},
                                                           {v1::SELECTION_RULE_WEIGHTS, SelectionRule::kWeights}});
  options.weights = ParseWeights(spec.weights(), errors.In("weights"));
  if (spec.has_leak_test()) options.leak_test = spec.leak_test();
  if (spec.has_sequence_length()) {
    options.sequence_length = errors.InRange("sequence_length", spec.sequence_length(), 2, 1'048'576);
  }
  return options;
}

}  // namespace trainyard::spec
