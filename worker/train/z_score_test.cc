#include "worker/train/z_score.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace trainyard::train {
namespace {

struct Memory {
  std::vector<float> values = std::vector<float>(kZScoreWindow);
  kernels::TensorView view{values.data(), kernels::DType::kF32, {kZScoreWindow}};
};

TEST(ZScoreTest, ScoresAgainstEarlierValuesOnly) {
  Memory memory;
  ZScore score(memory.view);
  // 8 times -1 and 8 times 1: mean 0, deviation 1.
  for (int i = 0; i < 16; ++i) EXPECT_EQ(score.Push(i % 2 == 0 ? -1 : 1), 0);
  EXPECT_DOUBLE_EQ(score.Push(7), 7);
  // Now the 7 is among them: mean 7/17, mean square (16 + 49) / 17.
  const double mean = 7.0 / 17;
  EXPECT_DOUBLE_EQ(score.Push(2), (2 - mean) / std::sqrt(65.0 / 17 - mean * mean));
}

TEST(ZScoreTest, ForgetsWhatLeftTheWindow) {
  Memory memory;
  ZScore score(memory.view);
  score.Push(1e6);
  for (int64_t i = 0; i < kZScoreWindow; ++i) score.Push(i % 2 == 0 ? -1 : 1);
  EXPECT_DOUBLE_EQ(score.Push(-3), -3);
}

TEST(ZScoreTest, ConstantValuesScoreNothingAndNonFiniteOnesStayOut) {
  Memory memory;
  ZScore score(memory.view);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(score.Push(2.5), 0);
  EXPECT_EQ(score.Push(std::numeric_limits<double>::quiet_NaN()), std::numeric_limits<double>::infinity());
  EXPECT_EQ(score.count(), 20);
  EXPECT_EQ(score.Push(2.5), 0);
}

}  // namespace
}  // namespace trainyard::train
