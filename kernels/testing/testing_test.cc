// The test helpers themselves: a matcher or guard that cannot fail would hide every bug above it.
#include <cmath>

#include "gtest/gtest-spi.h"
#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/finite_difference.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"

namespace trainyard::kernels::testing {
namespace {

TEST(AllNearTest, SeesDistanceSizeAndNan) {
  const Tolerance tolerance{.absolute = 0.1, .relative = 0.01};
  const std::vector<double> expected = {1.0, 100.0};
  EXPECT_THAT((std::vector<double>{1.1, 101.0}), AllNear(expected, tolerance));
  EXPECT_THAT((std::vector<double>{1.12, 100.0}), ::testing::Not(AllNear(expected, tolerance)));
  EXPECT_THAT((std::vector<double>{1.0}), ::testing::Not(AllNear(expected, tolerance)));
  EXPECT_THAT((std::vector<double>{std::nan(""), 100.0}), ::testing::Not(AllNear(expected, tolerance)));
  EXPECT_THAT((std::vector<double>{INFINITY, 100.0}), ::testing::Not(AllNear(expected, tolerance)));
}

TEST(FiniteDifferenceTest, MatchesACubic) {
  std::vector<double> x = {0.5, -2.0};
  const std::vector<double> gradient = FiniteDifferences(x, [&] { return x[0] * x[0] * x[0] + 3 * x[0] * x[1]; });
  EXPECT_NEAR(gradient[0], 3 * 0.25 - 6.0, 1e-8);
  EXPECT_NEAR(gradient[1], 1.5, 1e-8);
  EXPECT_EQ(x, (std::vector<double>{0.5, -2.0}));
}

TEST(HostTensorTest, GuardsCatchWritesOutside) {
  EXPECT_NONFATAL_FAILURE(
      {
        HostTensor tensor(DType::kF32, {3});
        static_cast<float*>(tensor.view().data())[3] = 1;
      },
      "wrote outside");
}

TEST(HostTensorTest, ValuesAreRoundedToTheDtype) {
  EXPECT_EQ(HostTensor::Of(DType::kBF16, {1}, {1.0 + 1.0 / 512}).ToDoubles()[0], 1.0);
  EXPECT_EQ(HostTensor::Filled(DType::kI32, {2}, -7).ToDoubles(), (std::vector<double>{-7, -7}));
  EXPECT_NE(HostTensor::Normal(DType::kF32, {8}, 1).Bytes(), HostTensor::Normal(DType::kF32, {8}, 2).Bytes());
}

TEST(OpCaseTest, DifferentBitsAreSeen) {
  EXPECT_NONFATAL_FAILURE(ExpectSameBitsForAnyThreadCount([](Stream& stream) {
                            return std::vector<uint8_t>{static_cast<uint8_t>(stream.threads() == 2)};
                          }),
                          "2 threads");
}

}  // namespace
}  // namespace trainyard::kernels::testing
