#include "proto/spec/study_expand.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "base/testing/status_matchers.h"

namespace trainyard::spec {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kStudy[] = R"pb(
  name: "laws"
  world { min: 2 }
  seed: 9
  model {
    shape { vocab_size: 257 hidden_size: 32 intermediate_size: 64 num_hidden_layers: 2 num_attention_heads: 2 }
    dtype: FLOAT_TYPE_FP32
  }
  data { path: "data/bytes" sequence_length: 32 }
  training {
    micro_batch: 4
    accumulation: 2
    optimizer { adamw { learning_rate: 4e-3 beta2: 0.9 } }
    schedule { shape: SHAPE_COSINE warmup_steps: 20 }
    evaluation { interval_steps: 10 batches: 3 }
  }
  study {
    sizes { name: "small" }
    sizes { name: "middle" hidden_size: 64 intermediate_size: 128 }
    sizes { hidden_size: 64 intermediate_size: 128 num_hidden_layers: 4 num_attention_heads: 4 }
    tokens_per_parameter: [ 5, 20, 40 ]
    recipes { name: "baseline" }
    recipes {
      name: "w4a4"
      linear { quest { weight_bits: 4 activation_bits: 4 hadamard_dim: 32 } }
    }
    recipes {
      name: "trion"
      optimizer { trion { learning_rate: 0.02 } }
    }
    seeds: [ 1, 2 ]
  }
)pb";

v1::JobSpec Spec() {
  v1::JobSpec spec;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(kStudy, &spec));
  return spec;
}

std::vector<StudyTraining> Expand(const v1::JobSpec& spec) {
  const auto options = ParseJob(spec);
  EXPECT_THAT(options, IsOk());
  return ExpandStudy(spec, *options);
}

constexpr int64_t kTokensPerStep = 2 * 4 * 2 * 32;

TEST(StudyExpandTest, IsTheWholeGridAndEveryTrainingIsAValidJob) {
  const std::vector<StudyTraining> trainings = Expand(Spec());
  ASSERT_EQ(trainings.size(), 3u * 3 * 3 * 2);
  for (const StudyTraining& training : trainings) {
    ASSERT_OK_AND_ASSIGN(const JobOptions options, ParseJob(training.spec));
    EXPECT_TRUE(std::holds_alternative<PretrainOptions>(options.kind));
    EXPECT_EQ(options.seed, training.seed);
    EXPECT_EQ(options.world.max, 2);
    EXPECT_EQ(options.data.path, "data/bytes");
    EXPECT_EQ(NonEmbeddingParameters(*ShapeOf(options.model)), training.parameters);
    EXPECT_EQ(options.training.steps, training.steps);
    EXPECT_EQ(training.tokens, training.steps * kTokensPerStep);
    // Rounded up to whole steps, by less than one.
    const double ratios[] = {5, 20, 40};
    const double wanted = ratios[training.ratio] * static_cast<double>(training.parameters);
    EXPECT_GE(static_cast<double>(training.tokens), wanted);
    EXPECT_LT(static_cast<double>(training.tokens), wanted + kTokensPerStep);
    // One evaluation, at the end, over all.
    EXPECT_EQ(options.training.evaluation.interval_steps, 0);
    EXPECT_GE(options.training.evaluation.batches, 1'000'000);
    EXPECT_EQ(options.labels.at("study"), "laws");
    EXPECT_EQ(std::holds_alternative<LinearQuest>(options.training.linear.scheme), training.recipe == 1);
    EXPECT_EQ(std::holds_alternative<TrionOptions>(options.training.optimizer), training.recipe == 2);
    EXPECT_EQ(options.training.schedule.shape, ScheduleShape::kCosine);
  }
  EXPECT_EQ(trainings[0].spec.labels().at("size"), "small");
  EXPECT_EQ(trainings[3].spec.labels().at("recipe"), "w4a4");
  EXPECT_EQ(trainings[3].spec.labels().at("seed"), "2");
  EXPECT_EQ(trainings[6].spec.labels().at("ratio"), "20");
  EXPECT_EQ(trainings.back().spec.labels().at("size"), "s3");
}

double RateOf(const StudyTraining& training) {
  const JobOptions options = *ParseJob(training.spec);
  if (const auto* trion = std::get_if<TrionOptions>(&options.training.optimizer)) return trion->learning_rate;
  return std::get<AdamWOptions>(options.training.optimizer).learning_rate;
}

TEST(StudyExpandTest, LearningRatesFollowTheRuleForAnyOptimizer) {
  v1::JobSpec spec = Spec();
  const std::vector<StudyTraining> by_parameters = Expand(spec);
  const double smallest = static_cast<double>(by_parameters.front().parameters);
  for (const StudyTraining& training : by_parameters) {
    const double first = training.recipe == 2 ? 0.02 : 4e-3;
    EXPECT_NEAR(RateOf(training), first * smallest / static_cast<double>(training.parameters), 1e-12);
    if (training.recipe != 2) continue;
    const auto trion = std::get<TrionOptions>(ParseJob(training.spec)->training.optimizer);
    EXPECT_NEAR(trion.adam_learning_rate / trion.learning_rate, 3e-4 / 0.02, 1e-12);
  }
  EXPECT_EQ(std::get<AdamWOptions>(ParseJob(by_parameters[0].spec)->training.optimizer).beta2, 0.9);
  spec.mutable_study()->mutable_learning_rate()->set_rule(v1::StudyLearningRate::RULE_INVERSE_WIDTH);
  EXPECT_NEAR(RateOf(Expand(spec).back()), 0.02 / 2, 1e-12);
  spec.mutable_study()->mutable_learning_rate()->set_rule(v1::StudyLearningRate::RULE_SAME);
  EXPECT_NEAR(RateOf(Expand(spec).back()), 0.02, 1e-12);
}

TEST(StudyExpandTest, WarmUpKeepsItsFractionOfTheShortestTraining) {
  const std::vector<StudyTraining> trainings = Expand(Spec());
  const double fraction = 20.0 / static_cast<double>(trainings.front().steps);
  for (const StudyTraining& training : trainings) {
    EXPECT_NEAR(static_cast<double>(training.spec.training().schedule().warmup_steps()),
                fraction * static_cast<double>(training.steps), 0.5);
  }
  v1::JobSpec spec = Spec();
  spec.mutable_training()->mutable_schedule()->set_warmup_steps(1000);
  EXPECT_THAT(ParseJob(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("training.schedule.warmup_steps: 1000 is more than")));
}

TEST(StudyExpandTest, ASizeThatARecipeIsNotDefinedForIsRefusedAtSubmit) {
  v1::JobSpec spec = Spec();
  spec.mutable_study()->mutable_recipes(1)->mutable_linear()->mutable_quest()->set_hadamard_dim(64);
  EXPECT_THAT(
      ParseJob(spec),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("study.recipes[1]: with size 'small': training.linear.quest: needs the inputs of "
                               "qkv to be a multiple of 64"),
                     ::testing::Not(HasSubstr("recipes[0]")), ::testing::Not(HasSubstr("'middle'")))));
  spec = Spec();
  spec.mutable_training()->set_lm_head_chunks(3);
  EXPECT_THAT(ParseJob(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("study.sizes[0]: with size 'small': training.lm_head_chunks")));
}

TEST(StudyExpandTest, GridsThatAreTooLargeAreRefused) {
  v1::JobSpec spec = Spec();
  spec.mutable_study()->clear_seeds();
  for (int i = 0; i < 64; ++i) spec.mutable_study()->add_seeds(static_cast<uint64_t>(i));
  for (int i = 3; i < 64; ++i) spec.mutable_study()->add_recipes()->set_name("r" + std::to_string(i));
  EXPECT_THAT(ParseJob(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("study: 36864 trainings (sizes, ratios, recipes and seeds)")));
}

TEST(StudyOptionsTest, ProblemsOfAStudyAreToldAtOnceWithTheirPaths) {
  v1::JobSpec spec = Spec();
  v1::StudySpec& study = *spec.mutable_study();
  spec.mutable_training()->set_steps(10);
  study.mutable_sizes(0)->set_hidden_size(33);
  study.set_tokens_per_parameter(1, 3);
  study.mutable_recipes(0)->set_name("other");
  study.mutable_recipes(1)->mutable_linear()->mutable_quest()->set_weight_bits(9);
  study.mutable_fit()->set_huber_delta(1);
  study.mutable_fit()->set_bootstrap(-1);
  study.add_seeds(1);
  study.add_predict();
  EXPECT_THAT(
      ParseJob(spec),
      StatusIs(absl::StatusCode::kInvalidArgument,
               AllOf(HasSubstr("training.steps: has no effect"), HasSubstr("study.sizes[0].hidden_size: 33"),
                     HasSubstr("study.tokens_per_parameter[1]: 3 is not more than 5"),
                     HasSubstr("study.recipes: have no 'baseline'"),
                     HasSubstr("study.recipes[1].linear.quest.weight_bits: 9 not in [1, 8]"),
                     HasSubstr("study.fit.huber_delta: 1 not in"), HasSubstr("study.fit.bootstrap: -1 not in"),
                     HasSubstr("study.seeds: has a seed twice"), HasSubstr("study.predict[0].parameters: 0 not in"))));
}

TEST(StudyOptionsTest, TheFormSaysWhatTheGridMustHave) {
  v1::JobSpec spec = Spec();
  spec.mutable_study()->mutable_tokens_per_parameter()->Truncate(2);
  EXPECT_THAT(ParseJob(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("study.tokens_per_parameter: 2 ratios not in [3, 64]")));
  spec.mutable_study()->mutable_fit()->set_form(v1::StudyFit::FORM_CHINCHILLA);
  ASSERT_OK_AND_ASSIGN(const JobOptions options, ParseJob(spec));
  EXPECT_EQ(std::get<StudyOptions>(options.kind).fit.huber_delta, 1e-3);
  spec = Spec();
  spec.mutable_study()->set_tokens_per_parameter(2, 30);
  EXPECT_THAT(ParseJob(spec), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("less than the factor of 8")));
  spec = Spec();
  spec.mutable_study()->mutable_sizes()->DeleteSubrange(1, 2);
  EXPECT_THAT(ParseJob(spec),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("study.sizes: 1 sizes not in [3, 64]")));
}

TEST(StudyOptionsTest, TheBudgetOfFlopsCountsAllTrainings) {
  v1::JobSpec spec = Spec();
  double flops = 0;
  for (const StudyTraining& training : Expand(spec)) {
    flops += 6.0 * static_cast<double>(training.parameters) * static_cast<double>(training.tokens);
  }
  spec.mutable_study()->set_max_total_flops(1.01 * flops);
  EXPECT_THAT(ParseJob(spec), IsOk());
  spec.mutable_study()->set_max_total_flops(0.97 * flops);
  EXPECT_THAT(ParseJob(spec), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("study.max_total_flops")));
}

TEST(StudyOptionsTest, ParametersLeaveOutTablesOnly) {
  LlamaShape shape{.vocab_size = 1000,
                   .hidden_size = 64,
                   .intermediate_size = 128,
                   .num_hidden_layers = 2,
                   .num_attention_heads = 4,
                   .num_key_value_heads = 4,
                   .head_dim = 16};
  // Per block: 4 square matrices, 3 of the MLP, 2 norms; and the last norm.
  EXPECT_EQ(NonEmbeddingParameters(shape), 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64);
  shape.tie_word_embeddings = true;
  EXPECT_EQ(NonEmbeddingParameters(shape), 2 * (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) + 64);
}

}  // namespace
}  // namespace trainyard::spec
