#include "coordinator/store/metric_points.h"

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Steps 1 to `count`, each with a loss; every third with an evaluation.
StoredPoints History(int count) {
  StoredPoints stored;
  for (int step = 1; step <= count; ++step) {
    v1::MetricPoint point;
    point.set_step(step);
    point.set_attempt(2);
    (*point.mutable_values())["loss"] = 0.5 * step;
    if (step % 3 == 0) (*point.mutable_values())["evaluation_loss"] = 0.25 * step;
    stored.push_back(point.SerializeAsString());
  }
  return stored;
}

std::vector<int64_t> Steps(const absl::StatusOr<std::vector<v1::MetricPoint>>& points) {
  std::vector<int64_t> steps;
  EXPECT_OK(points);
  if (points.ok()) {
    for (const v1::MetricPoint& point : *points) steps.push_back(point.step());
  }
  return steps;
}

TEST(MetricPointsTest, AllUnlessFewerAreWanted) {
  EXPECT_THAT(Steps(ChoosePoints({}, {})), ElementsAre());
  EXPECT_THAT(Steps(ChoosePoints(History(4), {})), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Steps(ChoosePoints(History(4), {.max_points = 9})), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(Steps(ChoosePoints(History(4), {.max_points = -1})), ElementsAre(1, 2, 3, 4));
}

TEST(MetricPointsTest, AChoiceIsSpreadEvenlyAndEndsWithTheNewest) {
  EXPECT_THAT(Steps(ChoosePoints(History(10), {.max_points = 5})), ElementsAre(2, 4, 6, 8, 10));
  EXPECT_THAT(Steps(ChoosePoints(History(10), {.max_points = 3})), ElementsAre(3, 6, 10));
  EXPECT_THAT(Steps(ChoosePoints(History(10), {.max_points = 1})), ElementsAre(10));
}

// Evaluations are rare: the choice is made among the points that have one.
TEST(MetricPointsTest, NamesLeaveOutOtherValuesAndPointsWithoutAny) {
  const auto points = ChoosePoints(History(12), {.names = {"evaluation_loss", "none"}, .max_points = 2});
  EXPECT_THAT(Steps(points), ElementsAre(6, 12));
  EXPECT_EQ(points->back().attempt(), 2);
  ASSERT_EQ(points->back().values().size(), 1u);
  EXPECT_EQ(points->back().values().at("evaluation_loss"), 3.0);
  EXPECT_THAT(Steps(ChoosePoints(History(12), {.names = {"none"}})), ElementsAre());
}

TEST(MetricPointsTest, WhatCannotBeReadIsSaid) {
  StoredPoints stored = History(3);
  stored[1] = "\x0A\xFF";
  EXPECT_THAT(ChoosePoints(stored, {}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("metric point")));
  EXPECT_THAT(ChoosePoints(stored, {.names = {"loss"}}), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("metric")));
}

}  // namespace
}  // namespace trainyard::coordinator
