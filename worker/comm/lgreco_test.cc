#include "worker/comm/lgreco.h"

#include <cmath>
#include <limits>
#include <random>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard::comm {
namespace {

using ::testing::ElementsAre;

// quantized-comm.md section 5, item 9.
TEST(LgrecoTest, TheEnumeratedExample) {
  const std::vector<LgrecoTensor> tensors = {
      {{.9, .2, .01}, {2, 4, 8}, 1}, {{.6, .15, .01}, {8, 16, 32}, 1}, {{.3, .08, .005}, {32, 64, 128}, 1}};
  ASSERT_OK_AND_ASSIGN(const LgrecoPlan plan, PlanLgreco(tensors, 1.0));
  EXPECT_NEAR(plan.budget, .43, 1e-12);
  EXPECT_THAT(plan.choices, ElementsAre(2, 2, 0));  // 8, 8 and 2 bits
  EXPECT_NEAR(plan.error, .32, 1e-12);
  EXPECT_EQ(plan.size, 72);  // the default's is 84
}

// Against all combinations: never over the budget, never larger than the default, and as small as the best that
// leaves room for rounding up.
TEST(LgrecoTest, IsTheBestOfAllCombinations) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> uniform(0.1, 1.0);
  for (int round = 0; round < 200; ++round) {
    const double alpha = round % 3 == 0 ? 0.5 : round % 3 == 1 ? 1.0 : 2.0;
    std::vector<LgrecoTensor> tensors(4);
    for (LgrecoTensor& tensor : tensors) {
      double error = 3 * uniform(random);
      int64_t size = 1 + static_cast<int64_t>(10 * uniform(random));
      for (int choice = 0; choice < 4; ++choice) {
        tensor.errors.push_back(error);
        tensor.sizes.push_back(size);
        error *= 0.5 * uniform(random);
        size += 1 + static_cast<int64_t>(20 * uniform(random));
      }
      tensor.default_choice = 1;
    }
    ASSERT_OK_AND_ASSIGN(const LgrecoPlan plan, PlanLgreco(tensors, alpha));
    int64_t usual = 0, with_room = std::numeric_limits<int64_t>::max(), best = with_room;
    for (const LgrecoTensor& tensor : tensors) usual += tensor.sizes[1];
    for (int combination = 0; combination < 256; ++combination) {
      double error = 0;
      int64_t size = 0;
      for (size_t l = 0; l < 4; ++l) {
        const auto choice = static_cast<size_t>(combination >> (2 * l) & 3);
        error += tensors[l].errors[choice];
        size += tensors[l].sizes[choice];
      }
      if (error <= plan.budget) best = std::min(best, size);
      if (error <= plan.budget * (1 - 4e-4)) with_room = std::min(with_room, size);
    }
    if (alpha >= 1) {
      EXPECT_LE(plan.size, usual);
      EXPECT_LE(plan.error, plan.budget * (1 + 1e-12));
    }
    EXPECT_GE(plan.size, std::min(best, usual)) << round;
    EXPECT_LE(plan.size, with_room) << round;
  }
}

// A choice whose error alone is beyond the budget must not slip in (the public code clamps its cost to the budget).
TEST(LgrecoTest, AChoiceBeyondTheBudgetIsLeftOut) {
  const std::vector<LgrecoTensor> tensors = {{{50.0, 1.0}, {1, 100}, 1}};
  ASSERT_OK_AND_ASSIGN(const LgrecoPlan plan, PlanLgreco(tensors, 1.0));
  EXPECT_THAT(plan.choices, ElementsAre(1));
}

TEST(LgrecoTest, WithoutErrorsOrWithBadOnesNothingIsPlanned) {
  ASSERT_OK_AND_ASSIGN(const LgrecoPlan zero, PlanLgreco({{{0, 0}, {1, 2}, 1}}, 1.0));
  EXPECT_THAT(zero.choices, ElementsAre(1));
  ASSERT_OK_AND_ASSIGN(const LgrecoPlan one_zero, PlanLgreco({{{0, 0}, {1, 2}, 1}, {{4, 1}, {1, 2}, 1}}, 1.0));
  EXPECT_THAT(one_zero.choices, ElementsAre(0, 1));
  EXPECT_THAT(PlanLgreco({{{std::nan(""), 0}, {1, 2}, 1}}, 1.0),
              StatusIs(absl::StatusCode::kInvalidArgument, ::testing::_));
  ASSERT_OK_AND_ASSIGN(const LgrecoPlan empty, PlanLgreco({}, 1.0));
  EXPECT_TRUE(empty.choices.empty());
}

}  // namespace
}  // namespace trainyard::comm
