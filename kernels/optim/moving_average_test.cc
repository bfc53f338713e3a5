#include "kernels/optim/moving_average.h"

#include <cmath>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

// The mean of x_1 .. x_t, whatever the average held before.
TEST(MovingAverage, RateOneOverTGivesTheMean) {
  testing::TestStream stream(1);
  const HostTensor average = HostTensor::Filled(DType::kF32, {3}, 99), x(DType::kF32, {3});
  double sums[3] = {};
  for (int t = 1; t <= 1000; ++t) {
    for (int i = 0; i < 3; ++i) {
      x.as<float>()[i] = std::sin(static_cast<float>(t * (i + 1)));
      sums[i] += static_cast<double>(x.as<float>()[i]);
    }
    MovingAverage({.x = x, .average = average, .rate = 1.0f / static_cast<float>(t)}, stream);
  }
  for (int i = 0; i < 3; ++i) EXPECT_NEAR(average.as<float>()[i], sums[i] / 1000, 1e-5);
}

// After n steps towards a constant, decay^n of the start is left.
TEST(MovingAverage, ConstantRateForgetsExponentially) {
  testing::TestStream stream(1);
  const HostTensor average = HostTensor::Filled(DType::kF32, {5}, 1), x = HostTensor::Filled(DType::kF32, {5}, 3);
  for (int t = 0; t < 100; ++t) MovingAverage({.x = x, .average = average, .rate = 0.01f}, stream);
  for (const double value : average.ToDoubles()) EXPECT_NEAR(value, 3 - 2 * std::pow(0.99, 100), 1e-5);
}

TEST(MovingAverage, ThreadCountShowsInNoBit) {
  testing::ExpectSameBitsForAnyThreadCount([](Stream& stream) {
    const HostTensor average = HostTensor::Normal(DType::kF32, {40001}, 1),
                     x = HostTensor::Normal(DType::kF32, {40001}, 2);
    MovingAverage({.x = x, .average = average, .rate = 0.3f}, stream);
    return average.Bytes();
  });
}

TEST(MovingAverage, AllDevicesGiveTheBitsOfTheCpu) {
  for (const int64_t begin : {0, 1}) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      const HostTensor average = HostTensor::Normal(DType::kF32, {1003}, 1),
                       x = HostTensor::Normal(DType::kF32, {1003}, 2);
      MovingAverage({.x = x.view().Slice(begin, 1002), .average = average.view().Slice(begin, 1002), .rate = 0.3f},
                    stream);
      return average.Bytes();
    });
  }
}

}  // namespace
}  // namespace trainyard::kernels
