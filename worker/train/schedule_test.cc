#include "worker/train/schedule.h"

#include <cmath>
#include <numbers>

#include "gtest/gtest.h"

namespace trainyard::train {
namespace {

using spec::ScheduleOptions;
using spec::ScheduleShape;

ScheduleOptions Options(ScheduleShape shape, int64_t warmup, double floor) {
  ScheduleOptions options;
  options.shape = shape;
  options.warmup_steps = warmup;
  options.final_fraction = floor;
  options.decay_fraction = 0.25;
  return options;
}

TEST(ScheduleTest, WarmUpRisesFromTheFirstStepToThePeak) {
  for (const ScheduleShape shape :
       {ScheduleShape::kConstant, ScheduleShape::kCosine, ScheduleShape::kLinear, ScheduleShape::kWsd}) {
    const ScheduleOptions options = Options(shape, 4, 0.1);
    EXPECT_EQ(RateMultiplier(options, 0, 100), 0.25);
    EXPECT_EQ(RateMultiplier(options, 1, 100), 0.5);
    EXPECT_EQ(RateMultiplier(options, 2, 100), 0.75);
    EXPECT_EQ(RateMultiplier(options, 3, 100), 1.0);
  }
}

TEST(ScheduleTest, EndsExactlyAtTheFloorOnTheLastStep) {
  for (const ScheduleShape shape : {ScheduleShape::kCosine, ScheduleShape::kLinear, ScheduleShape::kWsd}) {
    for (const int64_t warmup : {0, 1, 7}) {
      for (const double floor : {0.0, 0.1, 1.0}) {
        for (const int64_t steps : {10, 101}) {
          EXPECT_EQ(RateMultiplier(Options(shape, warmup, floor), steps - 1, steps), floor);
        }
      }
    }
  }
  EXPECT_EQ(RateMultiplier(Options(ScheduleShape::kConstant, 0, 0.1), 9, 10), 1.0);
}

TEST(ScheduleTest, StartsAtThePeakWithoutWarmUp) {
  for (const ScheduleShape shape :
       {ScheduleShape::kConstant, ScheduleShape::kCosine, ScheduleShape::kLinear, ScheduleShape::kWsd}) {
    EXPECT_EQ(RateMultiplier(Options(shape, 0, 0.1), 0, 50), 1.0);
  }
}

TEST(ScheduleTest, ValuesBetween) {
  // Warm-up of 1 and 21 steps: p = step / 20.
  EXPECT_DOUBLE_EQ(RateMultiplier(Options(ScheduleShape::kCosine, 1, 0.2), 10, 21), 0.6);
  EXPECT_DOUBLE_EQ(RateMultiplier(Options(ScheduleShape::kCosine, 1, 0.2), 5, 21),
                   0.2 + 0.4 * (1 + std::cos(std::numbers::pi / 4)));
  EXPECT_DOUBLE_EQ(RateMultiplier(Options(ScheduleShape::kLinear, 1, 0.2), 5, 21), 0.8);
  // 20 steps, a quarter of which decays: 15 .. 19, by a fifth each.
  const ScheduleOptions wsd = Options(ScheduleShape::kWsd, 2, 0.5);
  EXPECT_EQ(RateMultiplier(wsd, 14, 20), 1.0);
  EXPECT_DOUBLE_EQ(RateMultiplier(wsd, 15, 20), 0.9);
  EXPECT_DOUBLE_EQ(RateMultiplier(wsd, 17, 20), 0.7);
  EXPECT_DOUBLE_EQ(RateMultiplier(wsd, 19, 20), 0.5);
}

TEST(ScheduleTest, RunsThatAreAllWarmUpOrOneStep) {
  EXPECT_EQ(RateMultiplier(Options(ScheduleShape::kCosine, 5, 0.1), 4, 5), 1.0);
  EXPECT_EQ(RateMultiplier(Options(ScheduleShape::kCosine, 0, 0.1), 0, 1), 1.0);
  EXPECT_EQ(RateMultiplier(Options(ScheduleShape::kLinear, 0, 0.1), 0, 1), 1.0);
}

}  // namespace
}  // namespace trainyard::train
