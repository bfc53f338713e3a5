#include "scaling/study_fit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "base/check.h"
#include "base/testing/status_matchers.h"

namespace trainyard::scaling {
namespace {

const Law kTruth = {std::log(1.3e5), 0.58, std::log(4.7e5), 0.54, std::log(1.34), 0.28};
constexpr double kForwardEff = 0.645, kBackwardEff = 0.9;

// Sizes times ratios as in the published study; `noise` is the standard deviation of ln L.
std::vector<StudyRun> Losses(double noise, uint32_t seed, const Law& law = kTruth) {
  std::mt19937_64 bits(seed);
  std::normal_distribution<double> normal;
  std::vector<StudyRun> runs;
  const auto add = [&](const char* recipe, double n, double ratio, ActsOn acts_on, const Multipliers& eff) {
    StudyRun run;
    run.recipe = recipe;
    run.parameters = n;
    run.tokens = n * ratio;
    run.acts_on = acts_on;
    run.loss = std::exp(std::log(Loss(law, n, n * ratio, eff)) + noise * normal(bits));
    runs.push_back(run);
  };
  for (const double n : {3e7, 5e7, 1e8, 2e8, 4e8}) {
    for (const double ratio : {25, 50, 100, 200, 400, 800}) add("baseline", n, ratio, ActsOn::kParameters, {});
  }
  for (const double n : {3e7, 5e7, 1e8, 2e8}) {
    for (const double ratio : {25, 50, 100, 200, 400}) {
      add("forward", n, ratio, ActsOn::kParameters, {kForwardEff, 1});
      add("backward", n, ratio, ActsOn::kTokens, {1, kBackwardEff});
    }
  }
  return runs;
}

StudyFitOptions NoBootstrap() {
  StudyFitOptions options;
  options.bootstrap = 0;
  options.validate = false;
  return options;
}

const RecipeFit& Recipe(const StudyFit& fit, const std::string& name) {
  for (const RecipeFit& recipe : fit.recipes) {
    if (recipe.name == name) return recipe;
  }
  TY_CHECK(false);
}

// scaling-laws evidence 5.
TEST(StudyFitTest, RecoversALawWithoutNoise) {
  StudyFitOptions options = NoBootstrap();
  options.validate = true;
  ASSERT_OK_AND_ASSIGN(const StudyFit fit, FitStudy(Losses(0, 1), options));
  const auto found = NaturalParameters(fit.law), truth = NaturalParameters(kTruth);
  for (int k = 0; k < kLawParameters; ++k) EXPECT_NEAR(found[k] / truth[k], 1, 1e-4) << LawParameterNames()[k];
  EXPECT_NEAR(Recipe(fit, "forward").eff.parameters, kForwardEff, 1e-6);
  EXPECT_NEAR(Recipe(fit, "backward").eff.tokens, kBackwardEff, 1e-6);
  EXPECT_NEAR(Recipe(fit, "forward").joint.parameters, kForwardEff, 1e-6);
  EXPECT_GE(fit.agreeing_starts, 3);
  ASSERT_TRUE(fit.validation.has_value());
  EXPECT_LT(fit.validation->max_error, 1e-6);
  for (const RunFit& run : fit.runs) {
    EXPECT_NEAR(run.residual, 0, 1e-7);
    ASSERT_TRUE(run.inverted.has_value());
    EXPECT_NEAR(*run.inverted, run.run.recipe == "forward" ? kForwardEff : *run.inverted, 1e-4);
  }
}

TEST(StudyFitTest, RecoversBothEfficienciesOfOneMethod) {
  std::vector<StudyRun> runs = Losses(0, 1);
  std::vector<StudyRun> both;
  for (StudyRun run : runs) {
    if (run.recipe != "forward") continue;
    run.recipe = "both";
    run.acts_on = ActsOn::kBoth;
    run.loss = Loss(kTruth, run.parameters, run.tokens, {0.6, 0.8});
    both.push_back(run);
  }
  runs.insert(runs.end(), both.begin(), both.end());
  ASSERT_OK_AND_ASSIGN(const StudyFit fit, FitStudy(runs, NoBootstrap()));
  EXPECT_NEAR(Recipe(fit, "both").eff.parameters, 0.6, 1e-6);
  EXPECT_NEAR(Recipe(fit, "both").eff.tokens, 0.8, 1e-6);
}

TEST(StudyFitTest, RecoversTheFormWithoutOuterExponentAllAtOnce) {
  const Law truth = {std::log(400.0), 0.34, std::log(410.0), 0.28, std::log(1.69), 1};
  for (const bool two_stage : {true, false}) {
    StudyFitOptions options = NoBootstrap();
    options.objective = {Form::kChinchilla, 1e-3};
    options.two_stage = two_stage;
    ASSERT_OK_AND_ASSIGN(const StudyFit fit, FitStudy(Losses(0, 1, truth), options));
    EXPECT_NEAR(fit.law.alpha, 0.34, 1e-4);
    EXPECT_NEAR(std::exp(fit.law.e), 1.69, 1e-3);
    EXPECT_NEAR(Recipe(fit, "forward").eff.parameters, kForwardEff, 1e-6);
    EXPECT_EQ(fit.law.gamma, 1);
  }
}

// Intervals that are too narrow, for example of a bootstrap that does not fit the law again, fail this.
TEST(StudyFitTest, IntervalsCoverTheTruth) {
  int covered[2] = {0, 0};
  for (uint32_t repeat = 0; repeat < 100; ++repeat) {
    StudyFitOptions options = NoBootstrap();
    options.bootstrap = 100;
    options.seed = repeat;
    options.start = kTruth;  // of the search, for speed
    ASSERT_OK_AND_ASSIGN(const StudyFit fit, FitStudy(Losses(1e-3, 100 + repeat), options));
    const Interval& forward = Recipe(fit, "forward").parameters_interval;
    const Interval& backward = Recipe(fit, "backward").tokens_interval;
    covered[0] += forward.low95 <= kForwardEff && kForwardEff <= forward.high95 ? 1 : 0;
    covered[1] += backward.low95 <= kBackwardEff && kBackwardEff <= backward.high95 ? 1 : 0;
  }
  EXPECT_GE(covered[0], 90);
  EXPECT_GE(covered[1], 90);
}

// scaling-laws evidence 6.
TEST(StudyFitTest, UnitsOfParametersMoveOnlyA) {
  std::vector<StudyRun> runs = Losses(1e-3, 7);
  ASSERT_OK_AND_ASSIGN(const StudyFit before, FitStudy(runs, NoBootstrap()));
  for (StudyRun& run : runs) run.parameters *= 8;
  ASSERT_OK_AND_ASSIGN(const StudyFit after, FitStudy(runs, NoBootstrap()));
  EXPECT_NEAR(after.law.a, before.law.a + before.law.alpha * std::log(8.0), 1e-4);
  EXPECT_NEAR(after.law.alpha, before.law.alpha, 1e-5);
  EXPECT_NEAR(Recipe(after, "forward").eff.parameters, Recipe(before, "forward").eff.parameters, 1e-6);
  EXPECT_NEAR(Recipe(after, "backward").eff.tokens, Recipe(before, "backward").eff.tokens, 1e-6);
}

TEST(StudyFitTest, OrderOfRunsChangesNoBit) {
  std::vector<StudyRun> runs = Losses(1e-3, 8);
  StudyFitOptions options;
  options.bootstrap = 10;
  ASSERT_OK_AND_ASSIGN(const StudyFit before, FitStudy(runs, options));
  std::shuffle(runs.begin(), runs.end(), std::mt19937_64(3));
  ASSERT_OK_AND_ASSIGN(const StudyFit after, FitStudy(runs, options));
  EXPECT_EQ(before.law.a, after.law.a);
  EXPECT_EQ(before.cost, after.cost);
  for (size_t i = 0; i < before.recipes.size(); ++i) {
    EXPECT_EQ(before.recipes[i].eff.parameters, after.recipes[i].eff.parameters);
    EXPECT_EQ(before.recipes[i].tokens_interval.low95, after.recipes[i].tokens_interval.low95);
  }
}

TEST(StudyFitTest, TheBaselineAsAMethodHasEfficiencyOne) {
  std::vector<StudyRun> runs = Losses(1e-3, 9);
  std::vector<StudyRun> again;
  for (StudyRun run : runs) {
    if (run.recipe != "baseline") continue;
    run.recipe = "again";
    again.push_back(run);
  }
  runs.insert(runs.end(), again.begin(), again.end());
  for (const ActsOn acts_on : {ActsOn::kParameters, ActsOn::kTokens}) {
    for (StudyRun& run : runs) {
      if (run.recipe == "again") run.acts_on = acts_on;
    }
    ASSERT_OK_AND_ASSIGN(const StudyFit fit, FitStudy(runs, NoBootstrap()));
    EXPECT_NEAR(Recipe(fit, "again").eff.parameters, 1, 1e-6);
    EXPECT_NEAR(Recipe(fit, "again").eff.tokens, 1, 1e-6);
  }
}

TEST(StudyFitTest, RefusesWhatDeterminesNoLaw) {
  std::vector<StudyRun> runs = Losses(0, 1);
  runs.resize(5);  // the baseline's five ratios of one size
  EXPECT_THAT(FitStudy(runs, NoBootstrap()),
              StatusIs(absl::StatusCode::kFailedPrecondition, ::testing::HasSubstr("has 5 different pairs")));
  runs[2].loss = NAN;
  EXPECT_THAT(FitStudy(runs, NoBootstrap()),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("loss nan")));
  StudyFitOptions stopping;
  stopping.should_stop = [] { return true; };
  EXPECT_THAT(FitStudy(Losses(0, 1), stopping), StatusIs(absl::StatusCode::kCancelled, ::testing::_));
}

TEST(StudyFitTest, SaysWhenOneRatioLeavesTheLawOpen) {
  std::vector<StudyRun> runs = Losses(1e-3, 3);
  runs.erase(
      std::remove_if(runs.begin(), runs.end(), [](const StudyRun& run) { return run.tokens > 60 * run.parameters; }),
      runs.end());
  ASSERT_OK_AND_ASSIGN(const StudyFit fit, FitStudy(runs, NoBootstrap()));
  EXPECT_THAT(fit.notes, ::testing::Contains(::testing::HasSubstr("tokens per parameter span 25 to 50")));
}

}  // namespace
}  // namespace trainyard::scaling
