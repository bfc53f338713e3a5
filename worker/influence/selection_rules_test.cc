#include "worker/influence/selection_rules.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/tangent/random_direction.h"

namespace trainyard::influence {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

std::vector<int64_t> Samples(const std::vector<Selected>& selected) {
  std::vector<int64_t> samples;
  for (const Selected& one : selected) samples.push_back(one.sample);
  return samples;
}

// Target 0 likes 0, 1, 2 in this order, target 1 likes 0, 3, 1. Whoever comes second in a round takes its second best.
TEST(SelectionRulesTest, RoundRobinServesEveryTarget) {
  const std::vector<double> scores = {9, 9, 8, 2, 7, 1, 0, 8};
  const ScoreTable table{scores.data(), 4, 2};
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const std::vector<Selected> two = SelectRoundRobin(table, 2, seed);
    ASSERT_EQ(two.size(), 2u);
    EXPECT_EQ(two[0].sample, 0);
    EXPECT_EQ(two[0].score, 9);
    EXPECT_EQ(two[0].round, 0);
    EXPECT_THAT(two[1].sample, ::testing::AnyOf(1, 3));
    EXPECT_EQ(two[1].score, 8);
    const std::vector<Selected> all = SelectRoundRobin(table, 10, seed);
    EXPECT_THAT(Samples(all), UnorderedElementsAre(0, 1, 2, 3));
    EXPECT_EQ(all.back().round, 1);
  }
}

// Mean-then-top loses the target that few samples help; round robin does not (section 4).
TEST(SelectionRulesTest, RoundRobinCoversWhatTheMeanLoses) {
  std::vector<double> scores;
  for (int i = 0; i < 20; ++i) {
    scores.push_back(i < 18 ? 5 + i : 0);
    scores.push_back(i < 18 ? 0 : 3);
  }
  const ScoreTable table{scores.data(), 20, 2};
  const auto rare = [](const std::vector<Selected>& selected) {
    return std::count_if(selected.begin(), selected.end(), [](const Selected& s) { return s.sample >= 18; });
  };
  EXPECT_EQ(rare(SelectTopMean(table, 4)), 0);
  EXPECT_EQ(rare(SelectRoundRobin(table, 4, 1)), 2);
}

TEST(SelectionRulesTest, EqualScoresGoByTheSamplesNumber) {
  const std::vector<double> scores(6, 1.0);
  const ScoreTable table{scores.data(), 6, 1};
  EXPECT_THAT(Samples(SelectRoundRobin(table, 3, 1)), ElementsAre(0, 1, 2));
  EXPECT_THAT(Samples(SelectTopMean(table, 3)), ElementsAre(0, 1, 2));
  EXPECT_THAT(Samples(SelectTopMax(table, 3)), ElementsAre(0, 1, 2));
}

TEST(SelectionRulesTest, SamplesWithoutScoresAreNeverTaken) {
  const double none = -std::numeric_limits<double>::infinity();
  const std::vector<double> scores = {none, none, 1, std::nan(""), 0.5, 2};
  const ScoreTable table{scores.data(), 3, 2};
  EXPECT_THAT(Samples(SelectRoundRobin(table, 3, 1)), ElementsAre(2));
  EXPECT_THAT(Samples(SelectTopMean(table, 3)), ElementsAre(2));
  EXPECT_THAT(Samples(SelectTopMax(table, 3)), ElementsAre(2));
}

TEST(SelectionRulesTest, MeanAndMaximumAreWhatTheySay) {
  const std::vector<double> scores = {1, 5, 4, 4, 0, 7};
  const ScoreTable table{scores.data(), 3, 2};
  EXPECT_THAT(SelectTopMean(table, 3), ElementsAre(Selected{1, 4, 0}, Selected{2, 3.5, 0}, Selected{0, 3, 0}));
  EXPECT_THAT(SelectTopMax(table, 3), ElementsAre(Selected{2, 7, 0}, Selected{0, 5, 0}, Selected{1, 4, 0}));
}

TEST(SelectionRulesTest, CorrelationsAreTheClosedForms) {
  EXPECT_DOUBLE_EQ(SpearmanCorrelation({1, 2, 3, 4}, {10, 20, 30, 400}), 1);
  EXPECT_DOUBLE_EQ(SpearmanCorrelation({1, 2, 3, 4}, {4, 3, 2, 1}), -1);
  EXPECT_DOUBLE_EQ(SpearmanCorrelation({1, 2, 3}, {1, 3, 2}), 0.5);  // 1 - 6 * 2 / (3 * 8)
  EXPECT_EQ(SpearmanCorrelation({1, 1}, {1, 2}), 0);
  EXPECT_DOUBLE_EQ(Determination({1, 2, 3}, {1, 2, 3}), 1);
  EXPECT_DOUBLE_EQ(Determination({1, 2, 3}, {2, 2, 2}), 0);
  EXPECT_DOUBLE_EQ(Determination({1, 2, 3}, {1, 2, 4}), 0.5);
}

}  // namespace
}  // namespace trainyard::influence
