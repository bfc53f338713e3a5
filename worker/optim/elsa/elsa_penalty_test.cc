#include "worker/optim/elsa/elsa_penalty.h"

#include <cmath>

#include "gtest/gtest.h"

namespace trainyard::optim {
namespace {

using spec::ElsaOptions;
using Schedule = ElsaOptions::Schedule;

ElsaOptions OptionsOf(Schedule schedule, double lambda_init, double lambda, int interval) {
  ElsaOptions options;
  options.lambda_schedule = schedule;
  options.lambda_init = lambda_init;
  options.lambda = lambda;
  options.interval = interval;
  return options;
}

TEST(ElsaPenaltyTest, SchedulesHaveTheirFormulas) {
  const auto at = [](Schedule schedule, double first, int64_t step) {
    return ScheduledLambda(OptionsOf(schedule, first, 0.08, 4), step, 100);
  };
  EXPECT_EQ(at(Schedule::kConstant, 0, 50), 0.08);
  EXPECT_DOUBLE_EQ(at(Schedule::kLinear, 0.02, 25), 0.035);
  EXPECT_DOUBLE_EQ(at(Schedule::kCosine, 0.02, 50), 0.05);
  EXPECT_NEAR(at(Schedule::kCosine, 0.02, 25), 0.02 + 0.06 * (1 - std::sqrt(0.5)) / 2, 1e-15);
  EXPECT_DOUBLE_EQ(at(Schedule::kExponential, 0.02, 50), 0.04);
  EXPECT_NEAR(at(Schedule::kExponential, 0, 50), std::sqrt(1e-12 * 0.08), 1e-12);
  EXPECT_EQ(at(Schedule::kLinear, 0, 0), 0);
}

// methods/elsa.md 2.2, step 4, as it is written there, with its two variables. A rescale that is not one interval late,
// or a lambda that changes at every step, differs.
TEST(ElsaPenaltyTest, IsTheLoopOfTheNotes) {
  for (const Schedule schedule : {Schedule::kConstant, Schedule::kLinear, Schedule::kCosine, Schedule::kExponential}) {
    for (const double first : {0.0, 0.003, 0.5}) {
      for (const int interval : {1, 3, 32}) {
        const ElsaOptions options = OptionsOf(schedule, first, 0.01, interval);
        double lambda = schedule == Schedule::kConstant ? 0.01 : first;
        double previous = lambda;
        for (int64_t t = 0; t < 200; ++t) {
          const ElsaPenalty penalty = PenaltyAt(options, t, 200);
          ASSERT_EQ(penalty.lambda, lambda) << t;
          ASSERT_EQ(ProjectsAfter(options, t), t % interval == 0);
          if (t % interval != 0) continue;
          ASSERT_EQ(penalty.dual_factor, lambda == previous ? 1 : previous / lambda) << t;
          previous = lambda;
          lambda = ScheduledLambda(options, t, 200);
        }
      }
    }
  }
}

// 2.4: with lambda_init 0 the first interval is not penalised.
TEST(ElsaPenaltyTest, FirstIntervalIsFree) {
  const ElsaOptions options = OptionsOf(Schedule::kCosine, 0, 0.01, 8);
  for (int64_t t = 0; t <= 8; ++t) EXPECT_EQ(PenaltyAt(options, t, 100).lambda, 0);
  EXPECT_GT(PenaltyAt(options, 9, 100).lambda, 0);
  EXPECT_EQ(PenaltyAt(options, 16, 100).dual_factor, 0);  // 0 / lambda: what was gathered without a penalty goes
}

}  // namespace
}  // namespace trainyard::optim
