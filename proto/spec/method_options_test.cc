// Fields of the linear schemes and optimizers: defaults of the papers, ranges, and combinations that no method defines.
#include <google/protobuf/text_format.h>

#include <string>
#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/spec/field_errors.h"
#include "proto/spec/linear_options.h"
#include "proto/spec/optimizer_options.h"
#include "proto/v1/linear.pb.h"
#include "proto/v1/optimizer.pb.h"

namespace trainyard::spec {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The options, and the text of all problems.
template <typename Spec, typename Parser>
auto Parse(const std::string& text, Parser parser) {
  Spec spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec)) << text;
  FieldErrors errors;
  auto options = parser(spec, errors);
  const absl::Status status = errors.ToStatus();
  return std::make_pair(std::move(options), std::string(status.message()));
}
auto Linear(const std::string& text) {
  return Parse<v1::LinearScheme>(text, ParseLinear);
}
auto OptimizerOf(const std::string& text) {
  return Parse<v1::Optimizer>(text, ParseOptimizer);
}

template <typename Scheme>
Scheme LinearAs(const std::string& text) {
  const auto [options, problems] = Linear(text);
  EXPECT_EQ(problems, "") << text;
  return std::get<Scheme>(options.scheme);
}
template <typename Kind>
Kind OptimizerAs(const std::string& text) {
  const auto [options, problems] = OptimizerOf(text);
  EXPECT_EQ(problems, "") << text;
  return std::get<Kind>(options);
}

TEST(LinearOptionsTest, DefaultsAreThoseOfTheMethods) {
  const auto quest = LinearAs<LinearQuest>("quest {}");
  EXPECT_EQ(std::tie(quest.weight_bits, quest.activation_bits, quest.hadamard_dim), std::make_tuple(4, 4, 128));
  EXPECT_EQ(quest.gradient_mask, LinearQuest::GradientMask::kTrust);
  EXPECT_EQ(quest.one_bit_outer_scale, 1.30);
  const auto quartet = LinearAs<LinearQuartet>("quartet {}");
  EXPECT_EQ(quartet.backward_rounding, LinearQuartet::Rounding::kNearest);
  EXPECT_EQ(quartet.scale_rule, LinearQuartet::ScaleRule::kFloor);
  const auto quartet2 = LinearAs<LinearQuartet2>("quartet2 {}");
  EXPECT_TRUE(quartet2.four_over_six);
  EXPECT_EQ(quartet2.hadamard_dim, 128);
  EXPECT_EQ(quartet2.eden_group, 16);
}

TEST(LinearOptionsTest, WhatOneFieldMeansForOthers) {
  // Appendix A.2: s is 1.25 without rotation.
  EXPECT_EQ(LinearAs<LinearQuest>("quest { hadamard_dim: 0 weight_bits: 1 }").one_bit_outer_scale, 1.25);
  const auto absmax = LinearAs<LinearQuest>("quest { projection: PROJECTION_ABS_MAX }");
  EXPECT_EQ(absmax.hadamard_dim, 0);
  EXPECT_EQ(absmax.gradient_mask, LinearQuest::GradientMask::kStraightThrough);
  EXPECT_EQ(LinearAs<LinearQuest>("quest { projection: PROJECTION_LSQ }").gradient_mask,
            LinearQuest::GradientMask::kClip);
  EXPECT_FALSE(LinearAs<LinearQuartet2>("quartet2 { recipe: RECIPE_NVIDIA }").four_over_six);
}

TEST(LinearOptionsTest, ProblemsNameTheFieldAndWhatIsAllowed) {
  const std::tuple<const char*, const char*> cases[] = {
      {"quest { weight_bits: 9 }", "quest.weight_bits: 9 not in [1, 8]"},
      {"quest { activation_bits: 0 }", "quest.activation_bits: 0 not in [1, 8]"},
      {"quest { hadamard_dim: 48 }", "quest.hadamard_dim: 48 is not one of 0, 16, 32, 64, 128"},
      {"quest { weight_grid: GRID_FP4_E2M1 weight_bits: 4 }", "quest.weight_bits: has an effect with an INT grid only"},
      {"quest { weight_grid: GRID_INT_2_4 weight_bits: 3 }", "quest.weight_bits: 3 is not 4"},
      {"quest { activation_grid: GRID_INT_2_4 }", "quest.activation_grid: int_2_4 is for weights only"},
      {"quest { one_bit_outer_scale: 1.3 }", "quest.one_bit_outer_scale: has an effect with 1 bit only"},
      {"quest { trust_factor: 0 }", "quest.trust_factor: 0 not in (0, 10]"},
      {"quest { trust_factor: 1 gradient_mask: GRADIENT_MASK_CLIP }", "quest.trust_factor: has an effect with"},
      {"quest { projection: PROJECTION_LSQ gradient_mask: GRADIENT_MASK_TRUST }", "quest.gradient_mask: trust is"},
      {"quest { projection: PROJECTION_ABS_MAX weight_grid: GRID_FP4_E2M1 }", "quest.projection: abs_max and lsq"},
      {"quartet { backward_hadamard_dim: 16 }", "quartet.backward_hadamard_dim: 16 is not one of 0, 32, 64, 128"},
      {"quartet { forward_method: FORWARD_METHOD_NONE apply_mask: true }", "quartet.apply_mask: has an effect with"},
      {"quartet { backward_method: BACKWARD_METHOD_NONE backward_rounding: BACKWARD_ROUNDING_NEAREST }",
       "quartet.backward_rounding: has an effect with"},
      {"quartet2 { eden_clip: 9 }", "quartet2.eden_clip: 9 not in [4, 8]"},
      {"quartet2 { eden_group: 128 hadamard_dim: 64 }", "quartet2.eden_group: 128 needs hadamard_dim 128"},
      {"quartet2 { requantize_weight: false }", "quartet2.requantize_weight: false needs weight_block square_16x16"},
      {"quartet2 { recipe: RECIPE_TETRAJET_V2 four_over_six: true }", "quartet2.four_over_six: true is not defined"},
      {"quartet2 { recipe: RECIPE_NVIDIA hadamard_dim: 16 }", "quartet2.recipe: nvidia and tetrajet_v2 fix all"},
      {"exclude: ''", "exclude[0]: 0 characters not in [1, 200]"},
  };
  for (const auto& [text, problem] : cases) EXPECT_THAT(Linear(text).second, HasSubstr(problem)) << text;
}

// Quartet's transforms run over all three sizes, QuEST's over the inputs only.
TEST(LinearOptionsTest, MultiplesFollowFromGroups) {
  const auto multiples = [](const std::string& text) {
    const LinearMultiples of = MultiplesOf(Linear(text).first);
    return std::make_tuple(of.in, of.out, of.rows);
  };
  EXPECT_EQ(multiples("fp8 {}"), std::make_tuple(1, 1, 1));
  EXPECT_EQ(multiples("quest {}"), std::make_tuple(128, 1, 1));
  EXPECT_EQ(multiples("quest { hadamard_dim: 0 weight_grid: GRID_INT_2_4 }"), std::make_tuple(8, 1, 1));
  EXPECT_EQ(multiples("quartet {}"), std::make_tuple(32, 32, 32));
  EXPECT_EQ(multiples("quartet { backward_method: BACKWARD_METHOD_NONE }"), std::make_tuple(32, 1, 1));
  EXPECT_EQ(multiples("quartet2 {}"), std::make_tuple(16, 128, 128));
  EXPECT_EQ(multiples("quartet2 { backward_enabled: false }"), std::make_tuple(16, 1, 1));
}

TEST(OptimizerOptionsTest, DefaultsAreThoseOfTheMethods) {
  const auto eco = OptimizerAs<EcoOptions>("eco {}");
  EXPECT_EQ(std::tie(eco.beta1, eco.beta2, eco.epsilon, eco.weight_decay), std::make_tuple(0.9, 0.98, 1e-9, 0.1));
  EXPECT_EQ(eco.scale_granularity, EcoOptions::Granularity::kRow);
  EXPECT_EQ(OptimizerAs<EcoOptions>("eco { weight_format: WEIGHT_FORMAT_INT4 }").scale_granularity,
            EcoOptions::Granularity::kGroup128);
  const auto dct = OptimizerAs<DctAdamWOptions>("dct_adamw {}");
  EXPECT_EQ(std::tie(dct.subspace.rank, dct.update_gap, dct.rotate), std::make_tuple(256, 1, true));
  EXPECT_EQ(dct.error_feedback, DctAdamWOptions::ErrorFeedback::kInt8);
  EXPECT_TRUE(dct.subspace.layer_ranks.empty());
  const auto ranks = OptimizerAs<TrionOptions>(
      "trion { subspace { layer_ranks { pattern: '*.down.weight' rank: 64 } layer_ranks { pattern: '*' rank: 8 } } }");
  ASSERT_EQ(ranks.subspace.layer_ranks.size(), 2);
  EXPECT_EQ(ranks.subspace.layer_ranks[0].pattern, "*.down.weight");
  EXPECT_EQ(ranks.subspace.layer_ranks[0].rank, 64);
  EXPECT_EQ(ranks.subspace.layer_ranks[1].rank, 8);
  const auto trion = OptimizerAs<TrionOptions>("trion {}");
  EXPECT_EQ(std::tie(trion.mu, trion.newton_schulz_steps, trion.adam_epsilon), std::make_tuple(0.95, 5, 1e-10));
  const auto elsa = OptimizerAs<ElsaOptions>("elsa {}");
  EXPECT_EQ(std::tie(elsa.sparsity, elsa.interval, elsa.lambda, elsa.learning_rate),
            std::make_tuple(0.9, 32, 0.01, 2e-4));
  EXPECT_EQ(elsa.projection, ElsaOptions::Projection::kFisher);
  EXPECT_EQ(OptimizerAs<ElsaOptions>("elsa { pattern: PATTERN_2_4 }").sparsity, 0.5);
}

TEST(OptimizerOptionsTest, ProblemsNameTheFieldAndWhatIsAllowed) {
  const std::tuple<const char*, const char*> cases[] = {
      {"adamw { second_moment: MOMENT_TYPE_E4M3 }", "adamw.second_moment: e4m3 is not one of fp32, bf16"},
      {"eco { first_moment: MOMENT_TYPE_E4M3 }", "eco.first_moment: e4m3 is not one of fp32, bf16"},
      {"eco { beta1: 0 }", "eco.beta1: 0 not in (0, 1)"},
      {"eco { min_learning_rate: 0 }", "eco.min_learning_rate: 0 not in (0, 1]"},
      {"eco { form: FORM_SGDM beta2: 0.9 }", "eco.beta2: has an effect with form adamw only"},
      {"eco { form: FORM_SGDM_EXACT error_injection: false }", "eco.error_injection: false is no form of sgdm_exact"},
      {"dct_adamw { subspace { rank: 0 } }", "dct_adamw.subspace.rank: 0 not in [1, 65536]"},
      {"dct_adamw { subspace { layer_ranks { pattern: '*' } } }",
       "dct_adamw.subspace.layer_ranks[0].rank: 0 not in [1, 65536]"},
      {"dct_adamw { subspace { layer_ranks { pattern: '*' rank: 1 } layer_ranks { rank: 1 } } }",
       "dct_adamw.subspace.layer_ranks[1]: 0 characters"},
      {"dct_adamw { update_gap: 0 }", "dct_adamw.update_gap: 0 not in [1, 1000000]"},
      {"dct_adamw { subspace { basis: SUBSPACE_BASIS_DCT3 similarity: SUBSPACE_SIMILARITY_FFT } }",
       "dct_adamw.subspace.similarity: fft needs basis dct2"},
      {"trion { mu: 1 }", "trion.mu: 1 not in [0, 1)"},
      {"trion { newton_schulz_steps: 6 coefficients: COEFFICIENTS_SCHEDULED }",
       "trion.newton_schulz_steps: 6 not in [1, 5]"},
      {"elsa { sparsity: 1 }", "elsa.sparsity: 1 not in [0, 1)"},
      {"elsa { pattern: PATTERN_4_8 sparsity: 0.6 }", "elsa.sparsity: 0.6 is not 0.5"},
      {"elsa { lambda_init: 0.1 }", "elsa.lambda_init: has no effect with lambda_schedule constant"},
      {"elsa { scope: SCOPE_MODEL pattern: PATTERN_2_4 }", "elsa.scope: model needs pattern unstructured"},
      {"elsa { u_dtype: DUAL_TYPE_BF16 }", "elsa.u_dtype: differs from z_dtype"},
  };
  for (const auto& [text, problem] : cases) EXPECT_THAT(OptimizerOf(text).second, HasSubstr(problem)) << text;
}

TEST(OptimizerOptionsTest, AllProblemsComeAtOnce) {
  EXPECT_THAT(OptimizerOf("elsa { sparsity: 2 interval: 0 }").second,
              AllOf(HasSubstr("elsa.sparsity"), HasSubstr("elsa.interval")));
}

}  // namespace
}  // namespace trainyard::spec
