#include "kernels/pointwise/activation.h"

#include <cmath>

#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::OpCase;
using Values = std::vector<double>;

class ActivationTest : public ::testing::TestWithParam<OpCase> {
 protected:
  const DType dtype_ = GetParam().dtype;
  const int64_t size_ = GetParam().dim(0);
  const HostTensor x_ = HostTensor::Normal(dtype_, {size_}, 1, 2.0);
  const HostTensor dy_ = HostTensor::Normal(dtype_, {size_}, 2);
  const HostTensor start_ = HostTensor::Normal(dtype_, {size_}, 3);
  const testing::Tolerance tolerance_ = testing::ToleranceFor(dtype_);
  testing::TestStream stream_{2};
};

TEST_P(ActivationTest, LeakyReluAndItsGradient) {
  for (const float slope : {0.0f, 0.25f}) {
    const HostTensor y(dtype_, {size_});
    LeakyReluForward({.x = x_, .y = y, .slope = slope}, stream_);
    const HostTensor dx = start_.Copy();
    LeakyReluBackward({.y = y, .dy = dy_, .dx = dx, .slope = slope, .accumulate = true}, stream_);
    const HostTensor in_place = dy_.Copy();
    LeakyReluBackward({.y = y, .dy = in_place, .dx = in_place, .slope = slope}, stream_);
    const Values x = x_.ToDoubles();
    const Values dy = dy_.ToDoubles();
    Values expected_y(x), expected_dx(x), expected_sum = start_.ToDoubles();
    for (size_t i = 0; i < x.size(); ++i) {
      const double factor = x[i] > 0 ? 1.0 : static_cast<double>(slope);
      expected_y[i] = factor * x[i];
      expected_dx[i] = factor * dy[i];
      expected_sum[i] += expected_dx[i];
    }
    EXPECT_THAT(y.ToDoubles(), AllNear(expected_y, tolerance_));
    EXPECT_THAT(in_place.ToDoubles(), AllNear(expected_dx, tolerance_));
    EXPECT_THAT(dx.ToDoubles(), AllNear(expected_sum, tolerance_));
  }
}

TEST_P(ActivationTest, TanhAndItsGradient) {
  const HostTensor y = x_.Copy();
  TanhForward({.x = y, .y = y}, stream_);
  const HostTensor dx = start_.Copy();
  TanhBackward({.y = y, .dy = dy_, .dx = dx, .accumulate = true}, stream_);
  const Values x = x_.ToDoubles();
  const Values dy = dy_.ToDoubles();
  const Values stored = y.ToDoubles();
  Values expected_y(x), expected_dx = start_.ToDoubles();
  for (size_t i = 0; i < x.size(); ++i) {
    expected_y[i] = std::tanh(x[i]);
    expected_dx[i] += (1 - stored[i] * stored[i]) * dy[i];
  }
  EXPECT_THAT(stored, AllNear(expected_y, tolerance_));
  EXPECT_THAT(dx.ToDoubles(), AllNear(expected_dx, tolerance_));
}

TEST_P(ActivationTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor dx = start_.Copy();
    TanhBackward({.y = x_, .dy = dy_, .dx = dx, .accumulate = true}, stream);
    LeakyReluBackward({.y = x_, .dy = dx, .dx = dx, .slope = 0.1f}, stream);
    std::vector<uint8_t> bytes = dx.Bytes();
    bytes.push_back(1);  // so that empty shapes compare something
    return bytes;
  });
}

INSTANTIATE_TEST_SUITE_P(All, ActivationTest, ::testing::ValuesIn(testing::OpCases({{0}, {1}, {129}, {40000}})),
                         testing::OpCaseName);

// A ReLU that lets NaN become 0 hides a broken step from the NaN policy.
TEST(ActivationEdgeTest, NanStaysNan) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Filled(DType::kF32, {1}, NAN);
  const HostTensor y(DType::kF32, {1});
  LeakyReluForward({.x = x, .y = y, .slope = 0}, stream);
  EXPECT_TRUE(std::isnan(y.ToDoubles()[0]));
  TanhForward({.x = x, .y = y}, stream);
  EXPECT_TRUE(std::isnan(y.ToDoubles()[0]));
}

}  // namespace
}  // namespace trainyard::kernels
