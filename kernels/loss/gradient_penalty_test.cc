#include "kernels/loss/gradient_penalty.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

double MeanSquare(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return sum / static_cast<double>(values.size());
}

double Length(const std::vector<double>& values, int64_t row, int64_t cols) {
  double sum = 0;
  for (int64_t c = 0; c < cols; ++c) {
    const double value = values[static_cast<size_t>(row * cols + c)];
    sum += value * value;
  }
  return std::sqrt(sum);
}

class GradientPenaltyTest : public ::testing::TestWithParam<int64_t> {};

// The derivative of lambda * mean (|g| - 1)^2, by central differences of a reference in double.
TEST_P(GradientPenaltyTest, IsTheDerivativeOfItsMeanSquare) {
  testing::TestStream stream(2);
  constexpr int64_t kRows = 3;
  constexpr double kLambda = 10;
  const int64_t cols = GetParam();
  const HostTensor gradient = HostTensor::Normal(DType::kF32, {kRows, cols}, 4), deviations(DType::kF32, {kRows});
  std::vector<double> before = gradient.ToDoubles();
  GradientPenalty({.gradient = gradient, .deviations = deviations, .scale = 2 * kLambda / kRows}, stream);
  const std::vector<double> after = gradient.ToDoubles();
  const auto value = [&] {
    std::vector<double> distances;
    for (int64_t r = 0; r < kRows; ++r) distances.push_back(Length(before, r, cols) - 1);
    return kLambda * MeanSquare(distances);
  };
  EXPECT_NEAR(kLambda * MeanSquare(deviations.ToDoubles()), value(), 1e-5 * value());
  for (size_t i = 0; i < before.size(); i += before.size() / 20 + 1) {
    constexpr double kStep = 1e-5;
    const double start = before[i];
    before[i] = start + kStep;
    const double above = value();
    before[i] = start - kStep;
    const double below = value();
    before[i] = start;
    EXPECT_NEAR(after[i], (above - below) / (2 * kStep), 1e-4) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, GradientPenaltyTest, ::testing::Values(1, 7, 300, 1031));

TEST(GradientPenaltyTest, NoGradientHasNoDirection) {
  testing::TestStream stream(1);
  const HostTensor gradient = HostTensor::Filled(DType::kF32, {2, 5}, 0), deviations(DType::kF32, {2});
  GradientPenalty({.gradient = gradient, .deviations = deviations, .scale = 3}, stream);
  EXPECT_EQ(gradient.ToDoubles(), std::vector<double>(10, 0.0));
  EXPECT_EQ(deviations.ToDoubles(), std::vector<double>(2, -1.0));
}

TEST(GradientPenaltyTest, ThreadsShowInNoBit) {
  testing::ExpectSameBitsForAnyThreadCount([](Stream& stream) {
    const HostTensor gradient = HostTensor::Normal(DType::kF32, {33, 501}, 1), deviations(DType::kF32, {33});
    GradientPenalty({.gradient = gradient, .deviations = deviations, .scale = 0.5}, stream);
    std::vector<uint8_t> bytes = gradient.Bytes();
    const std::vector<uint8_t> more = deviations.Bytes();
    bytes.insert(bytes.end(), more.begin(), more.end());
    return bytes;
  });
}

}  // namespace
}  // namespace trainyard::kernels
