// Fields of select_data: the method's defaults, ranges, and combinations that mean nothing.
#include "proto/spec/select_data_options.h"

#include <google/protobuf/text_format.h>

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/spec/field_errors.h"
#include "proto/v1/select_data.pb.h"

namespace trainyard::spec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::pair<SelectDataOptions, std::string> Parse(const std::string& text) {
  v1::SelectDataSpec spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec)) << text;
  FieldErrors errors("select_data");
  const SelectDataOptions options = ParseSelectData(spec, errors);
  return {options, std::string(errors.ToStatus().message())};
}

constexpr char kRequired[] = "pool: 'a' target: 'b' ";

TEST(SelectDataOptionsTest, DefaultsAreThoseOfTheMethod) {
  const auto [options, problems] = Parse(kRequired);
  EXPECT_EQ(problems, "");
  EXPECT_EQ(options.method, SelectionMethod::kInfluence);
  EXPECT_EQ(options.count, 10'000);
  EXPECT_EQ(options.warmup.fraction, 0.05);
  EXPECT_EQ(options.warmup.epochs, 4);
  EXPECT_EQ(options.warmup.learning_rate, 2e-5);
  EXPECT_EQ(options.embedding.blocks, 4);
  EXPECT_EQ(options.embedding.tangents, 2);
  EXPECT_EQ(options.embedding.projection_dim, 4096);
  EXPECT_EQ(options.embedding.seed, 43u);
  EXPECT_THAT(options.gradients.parameters, ElementsAre("*down*"));
  EXPECT_EQ(options.gradients.projection, SelectionProjection::kHadamard);
  EXPECT_EQ(options.gradients.projection_dim, 32'768);
  EXPECT_FALSE(options.gradients.optimizer_scale.has_value());
  EXPECT_EQ(options.landmarks.count, 4096);
  EXPECT_EQ(options.landmarks.seed, 1u);
  EXPECT_EQ(options.propagation.kernel, RegressionKernel::kRbf);
  EXPECT_EQ(options.propagation.damping, 0.01);
  EXPECT_EQ(options.rule, SelectionRule::kRoundRobin);
  EXPECT_TRUE(std::isinf(options.weights.maximum));
  EXPECT_FALSE(options.leak_test);
}

TEST(SelectDataOptionsTest, EveryChoiceIsTaken) {
  const auto [options, problems] =
      Parse(std::string(kRequired) +
            "method: SELECTION_METHOD_LESS rule: SELECTION_RULE_WEIGHTS count: 7 "
            "gradients { projection: SELECTION_PROJECTION_RADEMACHER parameters: 'x*' "
            "optimizer_scale: SELECTION_SCALE_SGD mask_elements: 5 } "
            "landmarks { strategy: STRATEGY_KMEANS_PP count: 9 } "
            "propagation { kernel: KERNEL_LINEAR sigma: 2 } "
            "weights { lambda_rule: LAMBDA_RULE_FIXED lambda: 3 maximum: 4 second_order: true }");
  EXPECT_EQ(problems, "");
  EXPECT_EQ(options.method, SelectionMethod::kLess);
  EXPECT_EQ(options.rule, SelectionRule::kWeights);
  EXPECT_EQ(options.count, 7);
  EXPECT_EQ(options.gradients.projection, SelectionProjection::kRademacher);
  EXPECT_EQ(options.gradients.optimizer_scale, SelectionScale::kSgd);
  EXPECT_EQ(options.landmarks.strategy, LandmarkStrategy::kKmeansPlusPlus);
  EXPECT_EQ(options.propagation.kernel, RegressionKernel::kLinear);
  EXPECT_EQ(options.weights.lambda_rule, LambdaRule::kFixed);
  EXPECT_EQ(options.weights.lambda, 3);
  EXPECT_TRUE(options.weights.second_order);
}

TEST(SelectDataOptionsTest, ProblemsNameTheFieldAndWhatIsAllowed) {
  const std::pair<const char*, const char*> cases[] = {
      {"count: 0", "select_data.count: 0 not in [1,"},
      {"warmup { fraction: 1.5 }", "warmup.fraction: 1.5 not in [0, 1]"},
      {"warmup { epochs: 21 }", "warmup.epochs: 21 not in [0, 20]"},
      {"warmup { learning_rate: 0 }", "warmup.learning_rate: 0 not in (0, 0.01]"},
      {"warmup { fraction: nan }", "warmup.fraction: nan not in [0, 1]"},
      {"embedding { tangents: 17 }", "embedding.tangents: 17 not in [1, 16]"},
      {"embedding { projection_dim: 63 }", "embedding.projection_dim: 63 not in [64, 65536]"},
      {"gradients { mask_elements: -1 }", "gradients.mask_elements: -1 not in [0,"},
      {"landmarks { count: 0 }", "landmarks.count: 0 not in [1,"},
      {"propagation { damping: 0 }", "propagation.damping: 0 not in (0, 10]"},
      {"weights { lambda: 1 }", "weights.lambda: has no effect"},
      {"weights { lambda_rule: LAMBDA_RULE_FIXED }", "weights.lambda: missing"},
      {"weights { maximum: 0.5 }", "weights.maximum: 0.5 not in [1,"},
      {"sequence_length: 1", "sequence_length: 1 not in [2,"},
  };
  for (const auto& [text, problem] : cases) {
    EXPECT_THAT(Parse(std::string(kRequired) + text).second, HasSubstr(problem)) << text;
  }
  const std::string all = Parse("").second;
  EXPECT_THAT(all, ::testing::AllOf(HasSubstr("select_data.pool: missing"), HasSubstr("select_data.target: missing")));
}

}  // namespace
}  // namespace trainyard::spec
