#include "kernels/optim/clip_weights.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

TEST(ClipWeights, CutsBothSidesAndLeavesTheMiddle) {
  testing::TestStream stream(1);
  const HostTensor weight = HostTensor::Of(DType::kF32, {6}, {-2, -0.5, 0, 0.25, 0.5, 3});
  ClipWeights({.weight = weight, .limit = 0.5f}, stream);
  EXPECT_THAT(weight.ToDoubles(), ::testing::ElementsAre(-0.5, -0.5, 0, 0.25, 0.5, 0.5));
}

// A critic that has gone bad must not look healthy after clipping.
TEST(ClipWeights, KeepsNaNAndCutsInfinity) {
  testing::TestStream stream(1);
  const HostTensor weight(DType::kF32, {2});
  weight.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  weight.as<float>()[1] = -std::numeric_limits<float>::infinity();
  ClipWeights({.weight = weight, .limit = 0.01f}, stream);
  EXPECT_TRUE(std::isnan(weight.as<float>()[0]));
  EXPECT_EQ(weight.as<float>()[1], -0.01f);
}

TEST(ClipWeights, ThreadCountShowsInNoBit) {
  testing::ExpectSameBitsForAnyThreadCount([](Stream& stream) {
    const HostTensor weight = HostTensor::Normal(DType::kF32, {40001}, 1);
    ClipWeights({.weight = weight, .limit = 0.4f}, stream);
    return weight.Bytes();
  });
}

TEST(ClipWeights, AllDevicesGiveTheBitsOfTheCpu) {
  testing::ExpectSameBitsAsOnCpu([](Stream& stream) {
    const HostTensor weight = HostTensor::Normal(DType::kF32, {1003}, 1);
    ClipWeights({.weight = weight, .limit = 0.4f}, stream);
    return weight.Bytes();
  });
}

}  // namespace
}  // namespace trainyard::kernels
