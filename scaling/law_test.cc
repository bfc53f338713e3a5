#include "scaling/law.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <tuple>

#include "scaling/budget.h"
#include "scaling/capacity.h"

namespace trainyard::scaling {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::FieldsAre;

// Quartet's stage 1 (arXiv:2505.14669, notebooks/plots.ipynb).
constexpr Law kQuartet = {11.75543771, 0.57852012, 13.0515853, 0.5388769, 0.2933008, 0.27641569};

TEST(LawTest, GradientsAgreeWithDifferences) {
  for (const Law& law : {kQuartet, Law{2.1, 0.06, 4.5, 0.24, -3, 1}, Law{5, 1.5, 0, 0.2, 0.5, 0.9}}) {
    const double log_n = std::log(5e7), log_d = std::log(3e9);
    Gradient gradient;
    LogLoss(law, log_n, log_d, &gradient);
    const auto difference = [](const std::function<double(double)>& f) { return (f(1e-5) - f(-1e-5)) / 2e-5; };
    double Law::*const fields[] = {&Law::a, &Law::alpha, &Law::b, &Law::beta, &Law::e, &Law::gamma};
    for (int k = 0; k < kLawParameters; ++k) {
      const double expected = difference([&](double h) {
        Law moved = law;
        moved.*fields[k] += h;
        return LogLoss(moved, log_n, log_d);
      });
      EXPECT_NEAR(gradient.law[k], expected, 1e-8 * std::max(1.0, std::abs(expected))) << "parameter " << k;
    }
    EXPECT_NEAR(gradient.log_eff_parameters, difference([&](double h) { return LogLoss(law, log_n + h, log_d); }),
                1e-9);
    EXPECT_NEAR(gradient.log_eff_tokens, difference([&](double h) { return LogLoss(law, log_n, log_d + h); }), 1e-9);
  }
}

TEST(LawTest, IsTheFormula) {
  const double inner = 2e4 / std::pow(1e8 * 0.5, 0.6) + 3e5 / std::pow(1e10 * 0.8, 0.55);
  EXPECT_NEAR(Loss({std::log(2e4), 0.6, std::log(3e5), 0.55, std::log(1.2), 0.3}, 1e8, 1e10, {0.5, 0.8}),
              std::pow(inner, 0.3) + 1.2, 1e-12);
}

// Naive exponents overflow here: N^alpha is 1e320.
TEST(LawTest, SurvivesExponentsThatATrialStepMayTake) {
  EXPECT_TRUE(std::isfinite(LogLoss({800, 20, 5, 0.1, 0.3, 1}, std::log(1e16), std::log(1e18))));
  EXPECT_NEAR(LogLoss({0, 20, 0, 20, 0.3, 1}, std::log(1e16), std::log(1e18)), 0.3, 1e-15);
}

// scaling-laws evidence 7.
TEST(LawTest, PredictsWhatTheMethodFileDerives) {
  const double n = 102777856, d = 100 * n;
  EXPECT_NEAR(Loss(kQuartet, n, d), 2.8861, 5e-5);
  EXPECT_NEAR(Loss(kQuartet, n, d, {0.64516, 1}), 2.9572, 5e-5);
  EXPECT_NEAR(Loss(kQuartet, n, d, {1, 0.92807}), 2.8929, 5e-5);
  EXPECT_NEAR(Loss(kQuartet, n, d, {0.64516, 0.92807}), 2.9632, 5e-5);
}

TEST(LawTest, InvertsItselfForOneRun) {
  const double loss = Loss(kQuartet, 5e7, 4e9, {0.37, 1});
  EXPECT_NEAR(*InvertForParameters(kQuartet, 5e7, 4e9, loss), 0.37, 1e-9);
  EXPECT_EQ(InvertForParameters(kQuartet, 5e7, 4e9, 1.3), std::nullopt);  // below E
  // With few tokens the term of D alone is more than this loss.
  EXPECT_EQ(InvertForParameters(kQuartet, 5e7, 1e8, 2.5), std::nullopt);
}

TEST(BudgetTest, TradesPrecisionForSpeedAsDerived) {
  const double n = 1e9;
  const Multipliers forward = {0.64516, 1}, backward = {1, 0.92807}, both = {0.64516, 0.92807};
  EXPECT_NEAR(BudgetLoss(kQuartet, n, 100 * n, {1, 1}, {}), 2.42558, 5e-6);
  EXPECT_NEAR(BudgetLoss(kQuartet, n, 100 * n, {2, 1}, forward), 2.44003, 5e-6);
  EXPECT_NEAR(BudgetLoss(kQuartet, n, 100 * n, {1, 2}, backward), 2.40500, 5e-6);
  EXPECT_NEAR(BudgetLoss(kQuartet, n, 100 * n, {2, 2}, both), 2.40591, 5e-6);
  EXPECT_NEAR(BudgetLoss(kQuartet, n, 1000 * n, {1, 1}, {}), 2.32704, 5e-6);
  EXPECT_NEAR(BudgetLoss(kQuartet, n, 1000 * n, {2, 1}, forward), 2.30999, 5e-6);
  EXPECT_NEAR(BudgetLoss(kQuartet, n, 1000 * n, {1, 2}, backward), 2.31952, 5e-6);
  EXPECT_NEAR(BudgetLoss(kQuartet, n, 1000 * n, {2, 2}, both), 2.29658, 5e-6);
}

TEST(BudgetTest, RanksByEfficiencyPerBit) {
  StudyFit fit;
  for (const auto& [name, eff, bits] :
       {std::tuple{"w8a8", 1.016, 8.0}, std::tuple{"w4a4", 0.692, 4.0}, std::tuple{"w3a3", 0.433, 3.0},
        std::tuple{"unknown", 0.9, 0.0}, std::tuple{"w2a2", 0.152, 2.0}}) {
    RecipeFit recipe;
    recipe.name = name;
    recipe.eff.parameters = eff;
    recipe.bits = bits;
    fit.recipes.push_back(recipe);
  }
  EXPECT_THAT(RankByBits(fit), ElementsAre(FieldsAre("w4a4", 0.692, 4, DoubleNear(0.173, 5e-4)),
                                           FieldsAre("w3a3", 0.433, 3, DoubleNear(0.144, 5e-4)),
                                           FieldsAre("w8a8", 1.016, 8, DoubleNear(0.127, 5e-4)),
                                           FieldsAre("w2a2", 0.152, 2, DoubleNear(0.076, 5e-4))));
}

// quest.md 2.2: the authors' table of least errors.
TEST(CapacityTest, ErrorsOfGridsAreThePublishedOnes) {
  EXPECT_NEAR(UniformGridError(1), 1 - 2 / M_PI, 1e-9);
  EXPECT_NEAR(UniformGridError(2), 0.118846, 1e-6);
  EXPECT_NEAR(UniformGridError(3), 0.0374397, 1e-7);
  EXPECT_NEAR(UniformGridError(4), 0.0115429, 1e-7);
  EXPECT_NEAR(UniformGridError(5), 0.00349521, 1e-8);
  EXPECT_NEAR(UniformGridError(8), 8.782e-5, 2e-7);  // theirs is 0.15 % above the least
  EXPECT_NEAR(Fp4Error(), 0.0126849, 1e-7);
}

TEST(CapacityTest, PredictsTheDerivedEfficiencies) {
  const double expected[][3] = {
      {1, 0.180, 0.032}, {2, 0.444, 0.198}, {3, 0.670, 0.448}, {4, 0.820, 0.672}, {8, 0.989, 0.978}};
  for (const auto& [bits, weights, both] : expected) {
    const double rho = Capacity(UniformGridError(static_cast<int>(bits)));
    EXPECT_NEAR(rho, weights, 6e-4) << bits << " bits";
    EXPECT_NEAR(rho * rho, both, 6e-4) << bits << " bits";
  }
  EXPECT_EQ(Capacity(1), 0);
  EXPECT_EQ(Capacity(0), 1);
}

// Multipliers on non-zero and on all parameters differ by the density.
TEST(CapacityTest, SparsityIsCountedOnAllParameters) {
  const SparsityLaw law = {16.8, 0.722, 45, 0.245};
  EXPECT_NEAR(SparseMultiplier(law, 0), 1, 1e-12);
  EXPECT_GT(SparseMultiplier(law, 0.5), 1);
  EXPECT_NEAR(SparseEfficiency(law, 0.5), 0.5 * SparseMultiplier(law, 0.5), 1e-12);
  EXPECT_LT(SparseEfficiency(law, 0.5), 1);
  // The term of N is the same for N dense parameters at eff(S) N as for the sparse model itself.
  const double sparse = (law.a * std::pow(0.25, law.b) + law.c) * std::pow(0.25 * 1e8, -law.n);
  const double dense = (law.a + law.c) * std::pow(SparseEfficiency(law, 0.75) * 1e8, -law.n);
  EXPECT_NEAR(sparse / dense, 1, 1e-12);
}

}  // namespace
}  // namespace trainyard::scaling
