// The fits of the papers from their published losses (testdata/, scaling-laws evidence 1 to 4).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/check.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "scaling/huber.h"
#include "scaling/study_fit.h"

namespace trainyard::scaling {
namespace {

constexpr Law kQuartet = {11.75543771, 0.57852012, 13.0515853, 0.5388769, 0.2933008, 0.27641569};

std::vector<StudyRun> Load(const std::string& name) {
  const auto text = ReadFile("scaling/testdata/" + name);
  TY_CHECK_OK(text);
  const auto runs = ParseRuns(*text);
  TY_CHECK_OK(runs);
  return *runs;
}

std::map<std::string, std::vector<Observation>> ByRecipe(const std::vector<StudyRun>& runs) {
  std::map<std::string, std::vector<Observation>> observations;
  for (const StudyRun& run : runs) {
    observations[run.recipe].push_back({std::log(run.parameters), std::log(run.tokens), std::log(run.loss)});
  }
  return observations;
}

std::map<std::string, Multipliers> EffOf(const StudyFit& fit) {
  std::map<std::string, Multipliers> eff;
  for (const RecipeFit& recipe : fit.recipes) eff[recipe.name] = recipe.eff;
  return eff;
}

TEST(QuartetFitTest, CostAtThePublishedParametersIsTheirs) {
  const auto baseline = ByRecipe(Load("quartet.tsv"))["baseline"];
  ASSERT_EQ(baseline.size(), 24u);
  double cost = 0, worst = 0;
  for (const Observation& run : baseline) {
    const double residual = run.log_loss - LogLoss(kQuartet, run.log_parameters, run.log_tokens);
    cost += Huber(residual, 1e-4);
    worst = std::max(worst, std::abs(residual));
  }
  EXPECT_NEAR(cost, 2.12922e-6, 1e-10);
  EXPECT_NEAR(worst, 4.49e-3, 5e-6);
}

TEST(QuartetFitTest, EfficienciesWithThatLawAreTheirs) {
  const auto runs = ByRecipe(Load("quartet.tsv"));
  const Objective objective = {Form::kOuterExponent, 1e-4};
  const auto eff = [&](const char* recipe, ActsOn acts_on) {
    return FitMultipliers(kQuartet, runs.at(recipe), acts_on, objective).multipliers;
  };
  EXPECT_NEAR(eff("mxfp4-forward", ActsOn::kParameters).parameters, 0.64516, 5e-4);
  EXPECT_NEAR(eff("sr-backward", ActsOn::kTokens).tokens, 0.89347, 5e-4);
  EXPECT_NEAR(eff("rtn-backward", ActsOn::kTokens).tokens, 0.92807, 5e-4);
}

TEST(QuartetFitTest, TheGridOfStartsFindsThatCostOrLess) {
  const auto baseline = ByRecipe(Load("quartet.tsv"))["baseline"];
  ASSERT_OK_AND_ASSIGN(const LawFit fit, FitLaw(baseline, {Form::kOuterExponent, 1e-4}));
  EXPECT_LE(fit.cost, 2.1293e-6);
  EXPECT_GE(fit.starts, 50);
  EXPECT_GE(fit.agreeing, 3);
}

TEST(QuartetFitTest, TheWholeStudyFindsTheirEfficienciesInItsIntervals) {
  StudyFitOptions options;
  options.bootstrap = 100;
  ASSERT_OK_AND_ASSIGN(const StudyFit fit, FitStudy(Load("quartet.tsv"), options));
  const auto eff = EffOf(fit);
  EXPECT_NEAR(eff.at("mxfp4-forward").parameters, 0.64516, 0.01);
  EXPECT_NEAR(eff.at("sr-backward").tokens, 0.89347, 0.01);
  EXPECT_NEAR(eff.at("rtn-backward").tokens, 0.92807, 0.01);
  for (const RecipeFit& recipe : fit.recipes) {
    const bool is_forward = recipe.acts_on == ActsOn::kParameters;
    const Interval& interval = is_forward ? recipe.parameters_interval : recipe.tokens_interval;
    const double value = is_forward ? recipe.eff.parameters : recipe.eff.tokens;
    EXPECT_LT(interval.low95, value) << recipe.name;
    EXPECT_GT(interval.high95, value) << recipe.name;
    EXPECT_LT(interval.high95 - interval.low95, 0.2) << recipe.name;
    EXPECT_EQ(is_forward ? recipe.eff.tokens : recipe.eff.parameters, 1) << recipe.name;
  }
  // The 800M model from the smaller ones.
  ASSERT_TRUE(fit.validation.has_value());
  EXPECT_EQ(fit.validation->parameters, 822151168);
  EXPECT_EQ(fit.validation->runs, 1);
  EXPECT_LT(fit.validation->max_error, 0.01);
}

// Losses are those of the log rounded to four decimals, hence the tolerances.
TEST(QuestFitTest, LeastSquaresOfAllRunsReturnsThePublishedEfficiencies) {
  StudyFitOptions options;
  options.objective = {Form::kChinchilla, std::numeric_limits<double>::infinity()};
  options.two_stage = false;
  options.bootstrap = 0;
  const std::vector<StudyRun> runs = Load("quest.tsv");
  ASSERT_EQ(runs.size(), 104u);
  ASSERT_OK_AND_ASSIGN(const StudyFit fit, FitStudy(runs, options));
  EXPECT_NEAR(fit.cost, 7.3843e-4, 0.002 * 7.3843e-4);
  const auto eff = EffOf(fit);
  const std::map<std::string, double> published = {
      {"w8a8", 1.016},       {"w4a4", 0.692},       {"w3a3", 0.433},        {"w2a2", 0.152},
      {"w1a1", 0.0205},      {"fp4", 0.630},        {"w4a16", 0.840},       {"w3a16", 0.653},
      {"w2a16", 0.414},      {"w1a16", 0.138},      {"int4-2of4", 0.381},   {"w4a4-plain", 0.603},
      {"w3a3-plain", 0.322}, {"w2a2-plain", 0.078}, {"w1a1-plain", 0.0156}, {"w8a8-plain", 0.938}};
  for (const auto& [recipe, value] : published) {
    EXPECT_NEAR(eff.at(recipe).parameters, value, 0.01 * value) << recipe;
  }
  EXPECT_NEAR(fit.law.beta, 0.2413, 0.001);
  EXPECT_NEAR(fit.law.alpha, 0.0627, 0.001);
}

TEST(QuestFitTest, AHuberLossThatActsMovesTheEfficienciesAsDerived) {
  StudyFitOptions options;
  options.objective = {Form::kChinchilla, 1e-3};
  options.two_stage = false;
  options.bootstrap = 0;
  ASSERT_OK_AND_ASSIGN(const StudyFit fit, FitStudy(Load("quest.tsv"), options));
  const auto eff = EffOf(fit);
  for (const auto& [recipe, value] : std::map<std::string, double>{{"w2a2", 0.156},
                                                                   {"w3a3", 0.430},
                                                                   {"w4a4", 0.690},
                                                                   {"w8a8", 1.002},
                                                                   {"fp4", 0.618},
                                                                   {"int4-2of4", 0.376},
                                                                   {"w1a16", 0.138},
                                                                   {"w2a16", 0.409},
                                                                   {"w3a16", 0.654},
                                                                   {"w4a16", 0.833}}) {
    EXPECT_NEAR(eff.at(recipe).parameters, value, 0.01 * value) << recipe;
  }
}

}  // namespace
}  // namespace trainyard::scaling
