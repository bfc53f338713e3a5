// Evidence 2 and 3 of influence-distillation.md, and the second-order solver against what it must satisfy.
#include "worker/influence/sample_weights.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/tangent/random_direction.h"

namespace trainyard::influence {
namespace {

using ::testing::HasSubstr;
using Numbers = std::vector<double>;
using spec::LambdaRule;

Numbers Normal(int64_t count, uint32_t tensor) {
  Numbers out(static_cast<size_t>(count));
  kernels::FillDirection({.seed = 21, .tensor = tensor}, 0, count, out.data());
  return out;
}

double Sum(const Numbers& w) {
  return std::accumulate(w.begin(), w.end(), 0.0);
}

void ExpectNear(const Numbers& got, const Numbers& expected, double tolerance) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], tolerance) << "at " << i;
}

TEST(SampleWeightsTest, TheSupportRuleIsExact) {
  const Numbers p = {4, 3, 1, 0};
  EXPECT_DOUBLE_EQ(SupportLambda(p, 2), 1.25);
  double nu = 0;
  ExpectNear(ProjectOnSimplex(p, 1.25, std::numeric_limits<double>::infinity(), &nu), {2.4, 1.6, 0, 0}, 1e-12);
  EXPECT_NEAR(nu, 1, 1e-12);
  ASSERT_OK_AND_ASSIGN(const WeightSolution solution, SolveWeights(p, {.count = 2}));
  ExpectNear(solution.weights, {2.4, 1.6, 0, 0}, 1e-12);
  EXPECT_EQ(solution.support, 2);
  EXPECT_NEAR(solution.effective_size, 16 / (2.4 * 2.4 + 1.6 * 1.6), 1e-12);
}

TEST(SampleWeightsTest, ALargeLambdaMakesAllWeightsOne) {
  ExpectNear(ProjectOnSimplex({4, 3, 1, 0}, 1e9, std::numeric_limits<double>::infinity()), {1, 1, 1, 1}, 1e-8);
}

TEST(SampleWeightsTest, TheBoxIsKept) {
  double nu = 0;
  ExpectNear(ProjectOnSimplex({4, 3, 1, 0}, 1.25, 2, &nu), {2, 1.8, 0.2, 0}, 1e-9);
  EXPECT_NEAR(nu, 0.75, 1e-9);
}

TEST(SampleWeightsTest, SatisfiesTheOptimalityConditions) {
  const Numbers p = Normal(1000, 1);
  for (const double lambda : {1e-4, 1e-2, 1.0, 100.0}) {
    for (const double maximum : {1.5, 20.0, std::numeric_limits<double>::infinity()}) {
      const WeightProblem problem{.rule = LambdaRule::kFixed, .lambda = lambda, .maximum = maximum};
      ASSERT_OK_AND_ASSIGN(const WeightSolution solution, SolveWeights(p, problem));
      EXPECT_LT(solution.residual, 1e-9 * std::max(1.0, 1 / lambda)) << lambda << " " << maximum;
      EXPECT_NEAR(Sum(solution.weights), 1000, 1e-8);
      EXPECT_LE(*std::max_element(solution.weights.begin(), solution.weights.end()), maximum * (1 + 1e-12));
    }
  }
}

TEST(SampleWeightsTest, SupportIsTheCountForEveryCount) {
  const Numbers p = Normal(60, 2);
  for (int64_t count = 1; count <= 60; ++count) {
    ASSERT_OK_AND_ASSIGN(const WeightSolution solution, SolveWeights(p, {.count = count}));
    EXPECT_EQ(solution.support, count);
    EXPECT_NEAR(Sum(solution.weights), 60, 1e-9);
    EXPECT_LT(solution.residual, 1e-9);
  }
}

TEST(SampleWeightsTest, SupportWithABoxIsFoundToo) {
  const Numbers p = Normal(50, 3);
  for (const int64_t count : {20, 30, 49}) {
    ASSERT_OK_AND_ASSIGN(const WeightSolution solution, SolveWeights(p, {.count = count, .maximum = 3}));
    EXPECT_EQ(solution.support, count);
    EXPECT_LE(*std::max_element(solution.weights.begin(), solution.weights.end()), 3 + 1e-9);
  }
  EXPECT_THAT(SolveWeights(p, {.count = 10, .maximum = 3}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("weights.maximum: 3 times count 10")));
}

TEST(SampleWeightsTest, EffectiveSizeIsReached) {
  const Numbers p = Normal(200, 4);
  for (const int64_t size : {5, 50, 150}) {
    ASSERT_OK_AND_ASSIGN(const WeightSolution solution,
                         SolveWeights(p, {.rule = LambdaRule::kEffectiveSize, .count = size}));
    EXPECT_NEAR(solution.effective_size, static_cast<double>(size), 1e-6 * static_cast<double>(size));
  }
}

TEST(SampleWeightsTest, EqualInfluencesAreNoDivisionByZero) {
  ASSERT_OK_AND_ASSIGN(const WeightSolution all_equal, SolveWeights(Numbers(6, 0.5), {.count = 2}));
  ExpectNear(all_equal.weights, {3, 3, 0, 0, 0, 0}, 0);
  ASSERT_OK_AND_ASSIGN(const WeightSolution whole, SolveWeights(Numbers(6, 0.5), {.count = 6}));
  ExpectNear(whole.weights, {1, 1, 1, 1, 1, 1}, 1e-12);
  EXPECT_THAT(SolveWeights({1, std::nan("")}, {.count = 1}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("finite")));
  EXPECT_THAT(SolveWeights({1, 2}, {.count = 3}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("3 not in [1, 2]")));
}

// Q = R R^T - shift: indefinite where shift > 0.
SymmetricOperator Form(size_t size, double shift, Numbers* matrix) {
  const Numbers r = Normal(static_cast<int64_t>(size * size), 9);
  matrix->assign(size * size, 0);
  for (size_t i = 0; i < size; ++i) {
    for (size_t j = 0; j < size; ++j) {
      for (size_t k = 0; k < size; ++k) (*matrix)[i * size + j] += r[i * size + k] * r[j * size + k] / double(size);
    }
    (*matrix)[i * size + i] -= shift;
  }
  return [size, matrix](const Numbers& in, Numbers* out) {
    out->assign(size, 0);
    for (size_t i = 0; i < size; ++i) {
      for (size_t j = 0; j < size; ++j) (*out)[i] += (*matrix)[i * size + j] * in[j];
    }
  };
}

TEST(SampleWeightsTest, SpectrumIsThatOfADiagonal) {
  const SymmetricOperator diagonal = [](const Numbers& in, Numbers* out) {
    out->resize(in.size());
    for (size_t i = 0; i < in.size(); ++i) (*out)[i] = (static_cast<double>(i) - 3) * in[i];
  };
  const Spectrum exact = EstimateSpectrum(12, diagonal);
  EXPECT_NEAR(exact.smallest, -3, 1e-9);
  EXPECT_NEAR(exact.largest, 8, 1e-9);
  const Spectrum bound = EstimateSpectrum(1000, diagonal, 10);
  EXPECT_LE(bound.smallest, -3);
  EXPECT_GE(bound.largest, 996);
}

TEST(SampleWeightsTest, SecondOrderSolutionIsOptimal) {
  constexpr size_t kSize = 30;
  const Numbers p = Normal(kSize, 5);
  Numbers matrix;
  WeightProblem problem{.rule = LambdaRule::kFixed, .lambda = 0.2, .learning_rate = 0.5};
  problem.quadratic = Form(kSize, 0, &matrix);
  ASSERT_OK_AND_ASSIGN(const WeightSolution solution, SolveWeights(p, problem));
  EXPECT_LT(solution.residual, 1e-6);
  EXPECT_EQ(solution.lambda, 0.2);
  EXPECT_NEAR(Sum(solution.weights), kSize, 1e-8);
  // And no feasible point near it is better.
  const auto objective = [&](const Numbers& w) {
    Numbers qw;
    problem.quadratic(w, &qw);
    double value = 0;
    for (size_t i = 0; i < w.size(); ++i) value += -p[i] * w[i] + 0.25 * w[i] * qw[i] + 0.1 * w[i] * w[i];
    return value;
  };
  const double best = objective(solution.weights);
  for (uint32_t seed = 30; seed < 40; ++seed) {
    Numbers other = solution.weights;
    const Numbers noise = Normal(kSize, seed);
    for (size_t i = 0; i < kSize; ++i) other[i] += 0.1 * noise[i];
    EXPECT_GT(objective(ProjectOnSimplex(other, 1, 1e300)), best);
  }
}

TEST(SampleWeightsTest, IndefiniteCurvatureRaisesLambda) {
  constexpr size_t kSize = 20;
  Numbers matrix;
  WeightProblem problem{.rule = LambdaRule::kFixed, .lambda = 1e-3, .learning_rate = 1};
  problem.quadratic = Form(kSize, 2, &matrix);
  ASSERT_OK_AND_ASSIGN(const WeightSolution solution, SolveWeights(Normal(kSize, 6), problem));
  EXPECT_GT(solution.lambda, 1);
  EXPECT_LT(solution.residual, 1e-6);
}

TEST(SampleWeightsTest, SupportWithCurvatureIsFound) {
  constexpr size_t kSize = 25;
  Numbers matrix;
  WeightProblem problem{.count = 8, .learning_rate = 0.1};
  problem.quadratic = Form(kSize, 0, &matrix);
  ASSERT_OK_AND_ASSIGN(const WeightSolution solution, SolveWeights(Normal(kSize, 7), problem));
  EXPECT_EQ(solution.support, 8);
}

}  // namespace
}  // namespace trainyard::influence
