#include "proto/spec/optimizer_options.h"

#include "absl/strings/str_cat.h"
#include "proto/spec/choice.h"
#include "proto/spec/field_errors.h"
#include "proto/spec/patterns.h"
#include "proto/v1/optimizer.pb.h"

namespace trainyard::spec {
namespace {

constexpr int32_t kMaxUpdates = 1'000'000;
constexpr int32_t kMaxRank = 65'536;

MomentType ParseMoment(FieldErrors& errors, absl::string_view name, v1::MomentType type, bool allows_e4m3) {
  const MomentType moment = Choose<v1::MomentType, MomentType>(errors, name, type,
                                                               {{v1::MOMENT_TYPE_FP32, MomentType::kFp32},
                                                                {v1::MOMENT_TYPE_BF16, MomentType::kBf16},
                                                                {v1::MOMENT_TYPE_E4M3, MomentType::kE4M3}});
  if (moment == MomentType::kE4M3 && !allows_e4m3) {
    errors.Add(name, "e4m3 is not one of fp32, bf16 here");
    return MomentType::kFp32;
  }
  return moment;
}

// The fields that the Adam-like optimizers share, under the same names.
template <typename Spec, typename Options>
void ParseAdamFields(const Spec& spec, FieldErrors& errors, Options& options) {
  if (spec.has_learning_rate()) {
    options.learning_rate = errors.InRangeAbove("learning_rate", spec.learning_rate(), 0, 10);
  }
  if (spec.has_beta1()) options.beta1 = errors.InRangeBelow("beta1", spec.beta1(), 0, 1);
  if (spec.has_beta2()) options.beta2 = errors.InRangeBelow("beta2", spec.beta2(), 0, 1);
  if (spec.has_epsilon()) options.epsilon = errors.InRangeAbove("epsilon", spec.epsilon(), 0, 1);
  if (spec.has_weight_decay()) options.weight_decay = errors.InRange("weight_decay", spec.weight_decay(), 0, 10);
}

AdamWOptions ParseAdamW(const v1::AdamW& spec, FieldErrors& errors) {
  AdamWOptions options;
  ParseAdamFields(spec, errors, options);
  options.first_moment = ParseMoment(errors, "first_moment", spec.first_moment(), /*allows_e4m3=*/true);
  options.second_moment = ParseMoment(errors, "second_moment", spec.second_moment(), /*allows_e4m3=*/false);
  return options;
}

SgdOptions ParseSgd(const v1::Sgd& spec, FieldErrors& errors) {
  SgdOptions options;
  if (spec.has_learning_rate()) {
    options.learning_rate = errors.InRangeAbove("learning_rate", spec.learning_rate(), 0, 100);
  }
  if (spec.has_momentum()) options.momentum = errors.InRangeBelow("momentum", spec.momentum(), 0, 1);
  options.nesterov = spec.nesterov();
  if (options.nesterov && options.momentum == 0) errors.Add("nesterov", "true needs momentum above 0");
  if (spec.has_weight_decay()) options.weight_decay = errors.InRange("weight_decay", spec.weight_decay(), 0, 10);
  return options;
}

EcoOptions ParseEco(const v1::Eco& spec, FieldErrors& errors) {
  using Form = EcoOptions::Form;
  using Format = EcoOptions::WeightFormat;
  using Granularity = EcoOptions::Granularity;
  EcoOptions options;
  options.form = Choose<v1::Eco::Form, Form>(errors, "form", spec.form(),
                                             {{v1::Eco::FORM_ADAMW, Form::kAdamW},
                                              {v1::Eco::FORM_SGDM, Form::kSgdm},
                                              {v1::Eco::FORM_SGDM_EXACT, Form::kSgdmExact}});
  const bool is_adam = options.form == Form::kAdamW;
  if (!is_adam) {
    options.learning_rate = 0.1;
    options.weight_decay = 0;
    const auto refuse = [&](bool given, absl::string_view name) {
      if (given) errors.Add(name, "has an effect with form adamw only");
    };
    refuse(spec.has_beta2(), "beta2");
    refuse(spec.has_epsilon(), "epsilon");
    refuse(spec.has_weight_decay(), "weight_decay");
    refuse(spec.has_decay_correction(), "decay_correction");
    refuse(spec.second_moment() != v1::MOMENT_TYPE_UNSPECIFIED, "second_moment");
  }
  options.weight_format = Choose<v1::Eco::WeightFormat, Format>(
      errors, "weight_format", spec.weight_format(),
      {{v1::Eco::WEIGHT_FORMAT_E4M3, Format::kE4M3}, {v1::Eco::WEIGHT_FORMAT_INT4, Format::kInt4}});
  const Granularity usual = options.weight_format == Format::kInt4 ? Granularity::kGroup128 : Granularity::kRow;
  options.scale_granularity =
      Choose<v1::Eco::ScaleGranularity, Granularity>(errors, "scale_granularity", spec.scale_granularity(),
                                                     {{v1::Eco::SCALE_GRANULARITY_UNSPECIFIED, usual},
                                                      {v1::Eco::SCALE_GRANULARITY_ROW, Granularity::kRow},
                                                      {v1::Eco::SCALE_GRANULARITY_GROUP32, Granularity::kGroup32},
                                                      {v1::Eco::SCALE_GRANULARITY_GROUP128, Granularity::kGroup128},
                                                      {v1::Eco::SCALE_GRANULARITY_TENSOR, Granularity::kTensor}});
  options.rounding = Choose<v1::Eco::Rounding, EcoOptions::Rounding>(
      errors, "rounding", spec.rounding(),
      {{v1::Eco::ROUNDING_STOCHASTIC, EcoOptions::Rounding::kStochastic},
       {v1::Eco::ROUNDING_NEAREST, EcoOptions::Rounding::kNearest}});
  if (spec.has_error_injection()) options.error_injection = spec.error_injection();
  if (!options.error_injection && options.form == Form::kSgdmExact) {
    errors.Add("error_injection", "false is no form of sgdm_exact; take form sgdm");
  }
  options.decay_correction = spec.decay_correction();
  options.first_moment = ParseMoment(errors, "first_moment", spec.first_moment(), /*allows_e4m3=*/false);
  options.second_moment = ParseMoment(errors, "second_moment", spec.second_moment(), /*allows_e4m3=*/false);
  ParseAdamFields(spec, errors, options);
  // The error is divided by beta1.
  if (spec.has_beta1() && spec.beta1() == 0) errors.Add("beta1", "0 not in (0, 1)");
  if (spec.has_min_learning_rate()) {
    options.min_learning_rate = errors.InRangeAbove("min_learning_rate", spec.min_learning_rate(), 0, 1);
  }
  options.quantize = ParsePatterns(spec.quantize(), "quantize", errors);
  return options;
}

std::vector<SubspaceOptions::LayerRank> ParseLayerRanks(const v1::Subspace& spec, FieldErrors& errors) {
  google::protobuf::RepeatedPtrField<std::string> patterns;
  for (const v1::SubspaceLayerRank& entry : spec.layer_ranks()) *patterns.Add() = entry.pattern();
  std::vector<SubspaceOptions::LayerRank> ranks;
  for (const std::string& pattern : ParsePatterns(patterns, "layer_ranks", errors)) {
    const int index = static_cast<int>(ranks.size());
    const std::string name = absl::StrCat("layer_ranks[", index, "].rank");
    ranks.push_back({pattern, errors.InRange(name, spec.layer_ranks(index).rank(), 1, kMaxRank)});
  }
  return ranks;
}

SubspaceOptions ParseSubspace(const v1::Subspace& spec, FieldErrors& errors) {
  using Basis = SubspaceOptions::Basis;
  using Similarity = SubspaceOptions::Similarity;
  SubspaceOptions options;
  if (spec.has_rank()) options.rank = errors.InRange("rank", spec.rank(), 1, kMaxRank);
  options.layer_ranks = ParseLayerRanks(spec, errors);
  options.basis = Choose<v1::SubspaceBasis, Basis>(errors, "basis", spec.basis(),
                                                   {{v1::SUBSPACE_BASIS_DCT2, Basis::kDct2},
                                                    {v1::SUBSPACE_BASIS_DCT3, Basis::kDct3},
                                                    {v1::SUBSPACE_BASIS_RANDOM, Basis::kRandom}});
  options.similarity = Choose<v1::SubspaceSimilarity, Similarity>(errors, "similarity", spec.similarity(),
                                                                  {{v1::SUBSPACE_SIMILARITY_AUTO, Similarity::kAuto},
                                                                   {v1::SUBSPACE_SIMILARITY_GEMM, Similarity::kGemm},
                                                                   {v1::SUBSPACE_SIMILARITY_FFT, Similarity::kFft}});
  if (options.similarity == Similarity::kFft && options.basis != Basis::kDct2) {
    errors.Add("similarity", "fft needs basis dct2");
  }
  options.norm = Choose<v1::SubspaceNorm, SubspaceOptions::Norm>(
      errors, "norm", spec.norm(),
      {{v1::SUBSPACE_NORM_L1, SubspaceOptions::Norm::kL1}, {v1::SUBSPACE_NORM_L2, SubspaceOptions::Norm::kL2}});
  if (spec.has_full_rank_min_dim()) {
    options.full_rank_min_dim = errors.InRange("full_rank_min_dim", spec.full_rank_min_dim(), 2, 16'777'216);
  }
  return options;
}

DctAdamWOptions ParseDctAdamW(const v1::DctAdamW& spec, FieldErrors& errors) {
  using Feedback = DctAdamWOptions::ErrorFeedback;
  DctAdamWOptions options;
  FieldErrors subspace = errors.In("subspace");
  options.subspace = ParseSubspace(spec.subspace(), subspace);
  if (spec.has_update_gap()) options.update_gap = errors.InRange("update_gap", spec.update_gap(), 1, kMaxUpdates);
  if (spec.has_rotate()) options.rotate = spec.rotate();
  options.error_feedback =
      Choose<v1::DctAdamW::ErrorFeedback, Feedback>(errors, "error_feedback", spec.error_feedback(),
                                                    {{v1::DctAdamW::ERROR_FEEDBACK_INT8, Feedback::kInt8},
                                                     {v1::DctAdamW::ERROR_FEEDBACK_NONE, Feedback::kNone},
                                                     {v1::DctAdamW::ERROR_FEEDBACK_INT4, Feedback::kInt4},
                                                     {v1::DctAdamW::ERROR_FEEDBACK_FULL, Feedback::kFull}});
  ParseAdamFields(spec, errors, options);
  return options;
}

TrionOptions ParseTrion(const v1::Trion& spec, FieldErrors& errors) {
  using Scale = TrionOptions::UpdateScale;
  TrionOptions options;
  FieldErrors subspace = errors.In("subspace");
  options.subspace = ParseSubspace(spec.subspace(), subspace);
  if (spec.has_learning_rate()) {
    options.learning_rate = errors.InRangeAbove("learning_rate", spec.learning_rate(), 0, 10);
  }
  if (spec.has_mu()) options.mu = errors.InRangeBelow("mu", spec.mu(), 0, 1);
  options.coefficients = Choose<v1::Trion::Coefficients, TrionOptions::Coefficients>(
      errors, "coefficients", spec.coefficients(),
      {{v1::Trion::COEFFICIENTS_FIXED, TrionOptions::Coefficients::kFixed},
       {v1::Trion::COEFFICIENTS_SCHEDULED, TrionOptions::Coefficients::kScheduled}});
  if (spec.has_newton_schulz_steps()) {
    const int32_t most = options.coefficients == TrionOptions::Coefficients::kScheduled ? 5 : 20;
    options.newton_schulz_steps = errors.InRange("newton_schulz_steps", spec.newton_schulz_steps(), 1, most);
  }
  options.update_scale = Choose<v1::Trion::UpdateScale, Scale>(errors, "update_scale", spec.update_scale(),
                                                               {{v1::Trion::UPDATE_SCALE_KJ, Scale::kKj},
                                                                {v1::Trion::UPDATE_SCALE_NONE, Scale::kNone},
                                                                {v1::Trion::UPDATE_SCALE_KIMI, Scale::kKimi},
                                                                {v1::Trion::UPDATE_SCALE_DION, Scale::kDion}});
  if (spec.has_weight_decay()) options.weight_decay = errors.InRange("weight_decay", spec.weight_decay(), 0, 10);
  if (spec.has_adam_learning_rate()) {
    options.adam_learning_rate = errors.InRangeAbove("adam_learning_rate", spec.adam_learning_rate(), 0, 10);
  }
  if (spec.has_adam_beta1()) options.adam_beta1 = errors.InRangeBelow("adam_beta1", spec.adam_beta1(), 0, 1);
  if (spec.has_adam_beta2()) options.adam_beta2 = errors.InRangeBelow("adam_beta2", spec.adam_beta2(), 0, 1);
  if (spec.has_adam_epsilon()) options.adam_epsilon = errors.InRangeAbove("adam_epsilon", spec.adam_epsilon(), 0, 1);
  return options;
}

ElsaOptions ParseElsa(const v1::Elsa& spec, FieldErrors& errors) {
  using Pattern = ElsaOptions::Pattern;
  using Schedule = ElsaOptions::Schedule;
  using Dual = ElsaOptions::DualType;
  ElsaOptions options;
  ParseAdamFields(spec, errors, options);
  options.pattern = Choose<v1::Elsa::Pattern, Pattern>(errors, "pattern", spec.pattern(),
                                                       {{v1::Elsa::PATTERN_UNSTRUCTURED, Pattern::kUnstructured},
                                                        {v1::Elsa::PATTERN_2_4, Pattern::k2To4},
                                                        {v1::Elsa::PATTERN_4_8, Pattern::k4To8}});
  if (options.pattern != Pattern::kUnstructured) options.sparsity = 0.5;
  if (spec.has_sparsity()) {
    options.sparsity = errors.InRangeBelow("sparsity", spec.sparsity(), 0, 1);
    if (options.pattern != Pattern::kUnstructured && spec.sparsity() != 0.5) {
      errors.Add("sparsity", absl::StrCat(spec.sparsity(), " is not 0.5, which the patterns 2_4 and 4_8 are"));
    }
  }
  if (spec.has_interval()) options.interval = errors.InRange("interval", spec.interval(), 1, kMaxUpdates);
  if (spec.has_lambda()) options.lambda = errors.InRangeAbove("lambda", spec.lambda(), 0, 1000);
  options.lambda_schedule =
      Choose<v1::Elsa::Schedule, Schedule>(errors, "lambda_schedule", spec.lambda_schedule(),
                                           {{v1::Elsa::SCHEDULE_CONSTANT, Schedule::kConstant},
                                            {v1::Elsa::SCHEDULE_LINEAR, Schedule::kLinear},
                                            {v1::Elsa::SCHEDULE_COSINE, Schedule::kCosine},
                                            {v1::Elsa::SCHEDULE_EXPONENTIAL, Schedule::kExponential}});
  if (spec.has_lambda_init()) {
    options.lambda_init = errors.InRange("lambda_init", spec.lambda_init(), 0, 1000);
    if (options.lambda_schedule == Schedule::kConstant) {
      errors.Add("lambda_init", "has no effect with lambda_schedule constant");
    }
  }
  options.projection = Choose<v1::Elsa::Projection, ElsaOptions::Projection>(
      errors, "projection", spec.projection(),
      {{v1::Elsa::PROJECTION_FISHER, ElsaOptions::Projection::kFisher},
       {v1::Elsa::PROJECTION_MAGNITUDE, ElsaOptions::Projection::kMagnitude}});
  options.scope = Choose<v1::Elsa::Scope, ElsaOptions::Scope>(
      errors, "scope", spec.scope(),
      {{v1::Elsa::SCOPE_TENSOR, ElsaOptions::Scope::kTensor}, {v1::Elsa::SCOPE_MODEL, ElsaOptions::Scope::kModel}});
  if (options.scope == ElsaOptions::Scope::kModel && options.pattern != Pattern::kUnstructured) {
    errors.Add("scope", "model needs pattern unstructured");
  }
  const std::initializer_list<std::pair<v1::Elsa::DualType, Dual>> duals = {{v1::Elsa::DUAL_TYPE_FP32, Dual::kFp32},
                                                                            {v1::Elsa::DUAL_TYPE_BF16, Dual::kBf16},
                                                                            {v1::Elsa::DUAL_TYPE_E4M3, Dual::kE4M3},
                                                                            {v1::Elsa::DUAL_TYPE_E5M2, Dual::kE5M2}};
  options.z_dtype = Choose(errors, "z_dtype", spec.z_dtype(), duals);
  options.u_dtype = Choose(errors, "u_dtype", spec.u_dtype(), duals);
  options.state_layout = Choose<v1::Elsa::StateLayout, ElsaOptions::StateLayout>(
      errors, "state_layout", spec.state_layout(),
      {{v1::Elsa::STATE_LAYOUT_MERGED, ElsaOptions::StateLayout::kMerged},
       {v1::Elsa::STATE_LAYOUT_SEPARATE, ElsaOptions::StateLayout::kSeparate}});
  if (options.state_layout == ElsaOptions::StateLayout::kMerged && options.z_dtype != options.u_dtype) {
    errors.Add("u_dtype", "differs from z_dtype, which needs state_layout separate: merged keeps both in one buffer");
  }
  options.moments = Choose<v1::Elsa::Moments, ElsaOptions::Moments>(
      errors, "moments", spec.moments(),
      {{v1::Elsa::MOMENTS_FP32, ElsaOptions::Moments::kFp32}, {v1::Elsa::MOMENTS_INT8, ElsaOptions::Moments::kInt8}});
  options.lambda_divide_by_world = spec.lambda_divide_by_world();
  options.bias_correction = spec.bias_correction();
  options.exclude = ParsePatterns(spec.exclude(), "exclude", errors);
  return options;
}

}  // namespace

OptimizerOptions ParseOptimizer(const v1::Optimizer& spec, FieldErrors& errors) {
  switch (spec.kind_case()) {
    case v1::Optimizer::kSgd: {
      FieldErrors inner = errors.In("sgd");
      return ParseSgd(spec.sgd(), inner);
    }
    case v1::Optimizer::kEco: {
      FieldErrors inner = errors.In("eco");
      return ParseEco(spec.eco(), inner);
    }
    case v1::Optimizer::kDctAdamw: {
      FieldErrors inner = errors.In("dct_adamw");
      return ParseDctAdamW(spec.dct_adamw(), inner);
    }
    case v1::Optimizer::kTrion: {
      FieldErrors inner = errors.In("trion");
      return ParseTrion(spec.trion(), inner);
    }
    case v1::Optimizer::kElsa: {
      FieldErrors inner = errors.In("elsa");
      return ParseElsa(spec.elsa(), inner);
    }
    case v1::Optimizer::kAdamw:
    case v1::Optimizer::KIND_NOT_SET:
      break;
  }
  FieldErrors adamw = errors.In("adamw");
  return ParseAdamW(spec.adamw(), adamw);
}

}  // namespace trainyard::spec
