#include "proto/spec/prune_search_options.h"

#include <google/protobuf/text_format.h>

#include <tuple>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/spec/field_errors.h"
#include "proto/spec/job_options.h"
#include "proto/v1/job.pb.h"

namespace trainyard::spec {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<JobOptions> Parse(const std::string& kind, const std::string& around = "") {
  v1::JobSpec spec;
  const std::string text = "model { path: 'dense' } data { path: 'english' } " + kind + " " + around;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &spec)) << text;
  return ParseJob(spec);
}

// The table of methods/darwinlm.md, sections 2.3 and 3.
TEST(PruneSearchOptionsTest, DefaultsAreThoseOfTheMethod) {
  ASSERT_OK_AND_ASSIGN(const JobOptions job, Parse("prune_search {}"));
  const auto& options = std::get<PruneSearchOptions>(job.kind);
  EXPECT_EQ(options.database.levels, 11);
  EXPECT_EQ(options.database.calibration_tokens, int64_t{1} << 23);
  EXPECT_EQ(options.database.relative_damping, 0.01);
  EXPECT_EQ(options.database.store_dtype, PruneFloat::kBf16);
  EXPECT_TRUE(options.database.prune_kv_heads);
  const PruneSearchRules& search = options.search;
  EXPECT_EQ(search.target_level, 5);
  EXPECT_FALSE(search.target_parameters.has_value());
  EXPECT_EQ(std::tie(search.generations, search.offspring, search.max_flips), std::make_tuple(200, 16, 3));
  ASSERT_EQ(search.stages.size(), 4u);
  const std::tuple<int, int64_t, int64_t> stages[] = {
      {8, 10'000, 1024}, {4, 50'000, 2048}, {2, 100'000, 4096}, {1, 200'000, 8192}};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(
        std::make_tuple(search.stages[i].survivors, search.stages[i].train_tokens, search.stages[i].evaluation_tokens),
        stages[i]);
  }
  EXPECT_EQ(search.fitness, PruneFitness::kKl);
  EXPECT_EQ(search.kl_top_k, 512);
  EXPECT_EQ(search.fine_tune.learning_rate, 1e-5);
  EXPECT_EQ(search.fine_tune.batch_documents, 1);
  EXPECT_EQ(search.fine_tune.weight_decay, 0.01);
  EXPECT_EQ(search.fine_tune.enforcement, PruneEnforcement::kShrink);
  EXPECT_EQ(search.fine_tune.master_dtype, PruneFloat::kFp32);
  EXPECT_TRUE(search.resample);
  EXPECT_EQ(search.parameters_tolerance, 0.01);
  EXPECT_EQ(std::tie(search.train_pool_tokens, search.evaluation_pool_tokens), std::make_tuple(500'000, 100'000));
  EXPECT_FALSE(options.continue_training);
  EXPECT_TRUE(IsDriver(job.kind));
  EXPECT_EQ(GangOf(job).slot_type, SlotType::kDriver);
  EXPECT_EQ(TotalSteps(job), 203);
}

TEST(PruneSearchOptionsTest, ASectionTrainingMeansToTrainOn) {
  ASSERT_OK_AND_ASSIGN(const JobOptions with, Parse("prune_search {}", "training { steps: 5 }"));
  EXPECT_TRUE(std::get<PruneSearchOptions>(with.kind).continue_training);
  ASSERT_OK_AND_ASSIGN(const JobOptions without,
                       Parse("prune_search { continue_training: false }", "training { steps: 5 }"));
  EXPECT_FALSE(std::get<PruneSearchOptions>(without.kind).continue_training);
}

TEST(PruneSearchOptionsTest, ProblemsNameTheFieldAndWhatIsAllowed) {
  const std::tuple<const char*, const char*> cases[] = {
      {"prune_search { database { levels_attention: [0, 4, 4] levels_mlp: [0, 1, 2] } }",
       "prune_search.database.levels_attention[2]: 4 is not more than 4: levels must increase"},
      {"prune_search { database { levels_attention: [1, 4] levels_mlp: [0, 2] } }",
       "levels_attention[0]: 1 is not 0, the module as it is"},
      {"prune_search { database { levels_attention: [0, 4] } }",
       "prune_search.database.levels_mlp: missing; give both lists or neither"},
      {"prune_search { database { levels_attention: [0, 4] levels_mlp: [0, 1, 2] } }",
       "levels_mlp: 3 levels, but levels_attention has 2"},
      {"prune_search { database { levels_attention: [0, 4] levels_mlp: [0, 2] levels: 2 } }",
       "levels: has no effect beside"},
      {"prune_search { database { levels: 1 } }", "prune_search.database.levels: 1 not in [2, 256]"},
      {"prune_search { database { relative_damping: 2 } }", "relative_damping: 2 not in [0, 1]"},
      {"prune_search { database { sequence_length: 64 } }", "give data.sequence_length"},
      {"prune_search { search { target_level: 11 } }", "prune_search.search.target_level: 11 not in [0, 10]"},
      {"prune_search { search { target_parameters: 0 } }", "target_parameters: 0 not in [1, "},
      {"prune_search { search { generations: 0 } }", "generations: 0 not in [1, 1000000]"},
      {"prune_search { search { offspring: 0 } }", "offspring: 0 not in [1, 100000]"},
      {"prune_search { search { stages { survivors: 2 evaluation_tokens: 5 } } }",
       "stages[0].survivors: 2 is not 1, which the last stage leaves"},
      {"prune_search { search { stages { survivors: 1 } } }", "stages[0].evaluation_tokens: missing"},
      {"prune_search { search { stages { evaluation_tokens: 5 } } }", "stages[0].survivors: missing"},
      {"prune_search { search { stages { survivors: 2 evaluation_tokens: 5 } stages { survivors: 3 evaluation_tokens: "
       "5 } } }",
       "stages[1].survivors: 3 not in [1, 2]"},
      {"prune_search { search { train_pool_tokens: 1000 } }",
       "stages[0].train_tokens: 10000 is more than train_pool_tokens 1000"},
      {"prune_search { search { evaluation_pool_tokens: 4000 } }",
       "stages[2].evaluation_tokens: 4096 is more than evaluation_pool_tokens 4000"},
      {"prune_search { search { kl_top_k: 0 } }", "kl_top_k: 0 not in [1, 10000000]"},
      {"prune_search { search { fine_tune { learning_rate: 0 } } }", "fine_tune.learning_rate: 0 not in (0, 1]"},
      {"prune_search { search { fine_tune { batch_documents: 0 } } }", "batch_documents: 0 not in [1, 65536]"},
      {"prune_search { search { fine_tune { master_dtype: PRUNE_FLOAT_FP16 } } }", "fp16 is not one of fp32, bf16"},
      {"prune_search { baselines: PRUNE_BASELINE_SPDY baselines: PRUNE_BASELINE_SPDY }", "baselines[1]: named twice"},
      {"prune_search { continue_training: true }", "continue_training: true needs the job's section training"},
      {"prune_search { evaluation_batches: 0 }", "evaluation_batches: 0 not in [1, 1000000]"},
      {"prune_task {}", "prune_task: missing; give one of calibrate, layers, candidate"},
      {"prune_task { calibrate {} }", "calibrate.tokens: missing"},
      {"prune_task { layers { removed_columns: [0, 4] module: PRUNE_MODULE_MLP } }", "layers.hessians: missing"},
      {"prune_task { layers { hessians: 'h' removed_columns: [0, 4] } }", "layers.module: missing"},
      {"prune_task { layers { hessians: 'h' module: PRUNE_MODULE_MLP } }", "removed_columns: missing"},
      {"prune_task { candidate { attention_levels: 1 mlp_levels: 1 evaluation_tokens: 1 evaluation_pool_tokens: 1 "
       "train_pool_tokens: 1 } }",
       "candidate.database: missing"},
      {"prune_task { candidate { database: 'd' attention_levels: 1 mlp_levels: [1, 2] evaluation_tokens: 1 "
       "evaluation_pool_tokens: 1 train_pool_tokens: 1 } }",
       "mlp_levels: 2 levels, but attention_levels has 1"},
      {"prune_task { candidate { database: 'd' attention_levels: 1 mlp_levels: 1 evaluation_tokens: 9 "
       "evaluation_pool_tokens: 8 train_pool_tokens: 1 } }",
       "evaluation_pool_tokens: 8 not in [9, "},
  };
  for (const auto& [text, problem] : cases) {
    EXPECT_THAT(Parse(text), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(problem))) << text;
  }
}

TEST(PruneSearchOptionsTest, AFewOffspringHaveFewSurvivors) {
  ASSERT_OK_AND_ASSIGN(const JobOptions job, Parse("prune_search { search { offspring: 3 } }"));
  std::vector<int32_t> survivors;
  for (const PruneStageOptions& stage : std::get<PruneSearchOptions>(job.kind).search.stages) {
    survivors.push_back(stage.survivors);
  }
  EXPECT_THAT(survivors, ElementsAre(3, 3, 2, 1));
}

TEST(PruneLevelsTest, EqualStepsInWholeGroups) {
  FieldErrors errors;
  EXPECT_THAT(LevelsOf({}, 5, 64, 16, "levels_attention", errors), ElementsAre(0, 16, 32, 48, 64));
  EXPECT_THAT(LevelsOf({}, 3, 48, 16, "levels_attention", errors), ElementsAre(0, 32, 48));
  EXPECT_THAT(LevelsOf({}, 4, 10, 1, "levels_mlp", errors), ElementsAre(0, 3, 7, 10));
  EXPECT_THAT(LevelsOf({0, 16, 64}, 5, 64, 16, "levels_attention", errors), ElementsAre(0, 16, 64));
  EXPECT_OK(errors.ToStatus());
  LevelsOf({}, 6, 64, 16, "levels_attention", errors);
  LevelsOf({0, 8, 64}, 5, 64, 16, "levels_attention", errors);
  LevelsOf({0, 60}, 5, 64, 1, "levels_mlp", errors);
  EXPECT_THAT(errors.ToStatus(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       ::testing::AllOf(HasSubstr("6 levels need at least 5 groups of 16"),
                                        HasSubstr("levels_attention[1]: 8 is not a multiple"),
                                        HasSubstr("the last level removes 60 columns, not all 64"))));
}

}  // namespace
}  // namespace trainyard::spec
