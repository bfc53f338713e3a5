#include "kernels/quant/lsq.h"

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "kernels/quant/quest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"
#include "kernels/transform/hadamard.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;
using testing::OpCase;

class LsqTest : public ::testing::TestWithParam<OpCase> {};
INSTANTIATE_TEST_SUITE_P(All, LsqTest, ::testing::ValuesIn(testing::OpCases({{1, 7}, {5, 129}, {3, 2080}})),
                         testing::OpCaseName);

double HalfLevels(int bits) {
  return 0.5 * ((1 << bits) - 1);
}

TEST_P(LsqTest, FirstStepFollowsTheMeanMagnitude) {
  testing::TestStream stream(2);
  const HostTensor x = HostTensor::Normal(GetParam().dtype, GetParam().shape, 3);
  const HostTensor workspace(DType::kU8, {LsqWorkspaceBytes(GetParam().dim(0))});
  double sum = 0;
  for (const double value : x.ToDoubles()) sum += std::abs(value);
  for (const int bits : {1, 4, 8}) {
    const HostTensor step(DType::kF32, {1});
    LsqFirstStep({.x = x, .bits = bits, .step = step, .workspace = workspace}, stream);
    const double expected = 2 * sum / static_cast<double>(x.view().size()) / std::sqrt(HalfLevels(bits));
    EXPECT_NEAR(step.as<float>()[0], expected, 1e-6 * expected);
  }
}

// The formula in double. Fails if clipped entries are counted as the others, or the other way round.
TEST_P(LsqTest, StepGradientMatchesTheFormula) {
  testing::TestStream stream(2);
  const HostTensor x = HostTensor::Normal(GetParam().dtype, GetParam().shape, 3);
  const HostTensor gradient = HostTensor::Normal(GetParam().dtype, GetParam().shape, 4);
  const HostTensor workspace(DType::kU8, {LsqWorkspaceBytes(GetParam().dim(0))});
  const std::vector<double> v = x.ToDoubles(), g = gradient.ToDoubles();
  for (const int bits : {1, 2, 4, 8}) {
    const HostTensor step = HostTensor::Of(DType::kF32, {1}, {2.0 / HalfLevels(bits)});  // clips 5 % of the values
    const double s = step.as<float>()[0];
    double expected = 0, magnitude = 0;
    for (size_t i = 0; i < v.size(); ++i) {
      const double clip = HalfLevels(bits) * s;
      const double level = std::nearbyint(v[i] / s + 0.5);
      const double inside = (level - 0.5) - v[i] / s;
      const double term = g[i] * (std::abs(v[i]) <= clip ? inside : v[i] > 0 ? HalfLevels(bits) : -HalfLevels(bits));
      expected += term;
      magnitude += std::abs(term);
    }
    const HostTensor step_gradient = HostTensor::Filled(DType::kF32, {1}, 5);
    LsqStepGradient({.x = x,
                     .bits = bits,
                     .step = step,
                     .gradient = gradient,
                     .scale = 0.25f,
                     .step_gradient = step_gradient,
                     .workspace = workspace},
                    stream);
    EXPECT_NEAR(step_gradient.as<float>()[0], 5 + 0.25 * expected, 1e-5 * (5 + magnitude)) << bits;
  }
}

// With the codes held, v_hat is linear in the step; the gradient of sum g v_hat over entries that the step clips, and
// the rest about it, is what moving the step shows.
TEST(LsqFormulaTest, ClippedEntriesMoveWithTheStep) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {1, 4}, {100, -100, 100, -100});
  const HostTensor gradient = HostTensor::Of(DType::kF32, {1, 4}, {1, -2, 3, 4});
  const HostTensor workspace(DType::kU8, {LsqWorkspaceBytes(1)});
  const HostTensor step_gradient(DType::kF32, {1});
  LsqStepGradient({.x = x,
                   .bits = 4,
                   .step = HostTensor::Of(DType::kF32, {1}, {0.5}),
                   .gradient = gradient,
                   .step_gradient = step_gradient,
                   .workspace = workspace},
                  stream);
  EXPECT_EQ(step_gradient.as<float>()[0], 7.5f * (1 + 2 + 3 - 4));
}

TEST(LsqFormulaTest, RotatesFirst) {
  testing::TestStream stream(2);
  const HostTensor x = HostTensor::Normal(DType::kF32, {9, 2048}, 3), rotated(DType::kF32, {9, 2048});
  const HostTensor gradient = HostTensor::Normal(DType::kF32, {9, 2048}, 4);
  Hadamard({.x = x, .y = rotated, .group = 64}, stream);
  const HostTensor workspace(DType::kU8, {LsqWorkspaceBytes(9)});
  const HostTensor steps(DType::kF32, {2}), gradients(DType::kF32, {2});
  for (const int64_t i : {0, 1}) {
    const TensorView operand = i == 0 ? x : rotated;
    const int64_t group = i == 0 ? 64 : 0;
    const TensorView step = steps.view().Slice(i, 1);
    LsqFirstStep({.x = operand, .rotate_group = group, .step = step, .workspace = workspace}, stream);
    LsqStepGradient({.x = operand,
                     .rotate_group = group,
                     .step = step,
                     .gradient = gradient,
                     .step_gradient = gradients.view().Slice(i, 1),
                     .workspace = workspace},
                    stream);
  }
  EXPECT_EQ(steps.as<float>()[0], steps.as<float>()[1]);
  EXPECT_EQ(gradients.as<float>()[0], gradients.as<float>()[1]);
}

// The quantizer takes the step as it is given, in values, codes and mask.
TEST(LsqFormulaTest, QuantizesWithTheGivenStep) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {2, 8},
                                      {0.1, -0.1, 0.6, 1.4, 3.9, 4.1, -9, 0.4,  //
                                       1, 2, 3, 4, 5, 6, 7, 8});
  const HostTensor steps(DType::kF32, {2}), values(DType::kF32, {2, 8}), mask(DType::kU8, {2, 1});
  LsqRowSteps({.step = HostTensor::Of(DType::kF32, {1}, {0.5}), .steps = steps}, stream);
  QuestQuantize({.v = x,
                 .format = {.bits = 4, .clip = QuestClip::kGiven, .mask = QuestMask::kClip},
                 .steps = steps,
                 .values = values,
                 .mask = mask},
                stream);
  EXPECT_EQ(values.ToDoubles(), (std::vector<double>{0.25, -0.25, 0.75, 1.25, 3.75, 3.75, -3.75, 0.25,  //
                                                     0.75, 1.75, 2.75, 3.75, 3.75, 3.75, 3.75, 3.75}));
  EXPECT_EQ(mask.Bytes(), (std::vector<uint8_t>{0x8F, 0x07}));
}

TEST(LsqFormulaTest, StepsThatAreNoneCountAsTiny) {
  testing::TestStream stream(1);
  const HostTensor steps(DType::kF32, {3});
  for (const double bad : {0.0, -1.0}) {
    LsqRowSteps({.step = HostTensor::Of(DType::kF32, {1}, {bad}), .steps = steps}, stream);
    for (const double step : steps.ToDoubles()) EXPECT_EQ(step, 1e-8f);
  }
}

TEST(LsqFormulaTest, SameBitsForAnyThreads) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {77, 1100}, 3),
                   g = HostTensor::Normal(DType::kF32, {77, 1100}, 4);
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor workspace(DType::kU8, {LsqWorkspaceBytes(77)}), both(DType::kF32, {2});
    const TensorView step = both.view().Slice(0, 1);
    LsqFirstStep({.x = x, .step = step, .workspace = workspace}, stream);
    LsqStepGradient(
        {.x = x, .step = step, .gradient = g, .step_gradient = both.view().Slice(1, 1), .workspace = workspace},
        stream);
    return both.Bytes();
  });
}

// Steps, gradients and row steps, with every way of rotating; more rows than there are partial sums of them.
TEST(LsqFormulaTest, SameBitsAsOnCpu) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t group : {0, 16, 128, 256, 512, 1024}) {
      const int64_t rows = group == 0 ? 300 : 7, cols = group == 0 ? 333 : group == 1024 ? 2048 : 1536;
      const HostTensor x = HostTensor::Normal(dtype, {rows, cols}, 3), g = HostTensor::Normal(dtype, {rows, cols}, 4);
      for (const int bits : {1, 4}) {
        testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
          const HostTensor workspace(DType::kU8, {LsqWorkspaceBytes(rows)}), step(dtype, {1});
          const HostTensor gradient = HostTensor::Filled(DType::kF32, {1}, 0.25), steps(DType::kF32, {rows});
          LsqFirstStep({.x = x, .bits = bits, .rotate_group = group, .step = step, .workspace = workspace}, stream);
          LsqStepGradient({.x = x,
                           .bits = bits,
                           .rotate_group = group,
                           .step = step,
                           .gradient = g,
                           .scale = 0.37f,
                           .step_gradient = gradient,
                           .workspace = workspace},
                          stream);
          LsqRowSteps({.step = step, .steps = steps}, stream);
          std::vector<uint8_t> all = step.Bytes();
          for (const HostTensor* more : {&gradient, &steps}) {
            const std::vector<uint8_t> bytes = more->Bytes();
            all.insert(all.end(), bytes.begin(), bytes.end());
          }
          return all;
        });
      }
    }
  }
}

}  // namespace
}  // namespace trainyard::kernels
