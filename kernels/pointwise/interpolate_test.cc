#include "kernels/pointwise/interpolate.h"

#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

TEST(InterpolateTest, EachRowHasItsOwnShare) {
  testing::TestStream stream(1);
  constexpr int64_t kRows = 5, kCols = 301;  // more than a block of threads
  const HostTensor x = HostTensor::Normal(DType::kF32, {kRows, kCols}, 1),
                   y = HostTensor::Normal(DType::kF32, {kRows, kCols}, 2), out(DType::kF32, {kRows, kCols});
  const HostTensor a(DType::kF32, {kRows});
  for (int r = 0; r < kRows; ++r) a.as<float>()[r] = 0.25f * static_cast<float>(r);
  Interpolate({.a = a, .x = x, .y = y, .out = out}, stream);
  const std::vector<double> got = out.ToDoubles(), from = x.ToDoubles(), to = y.ToDoubles();
  for (int64_t r = 0; r < kRows; ++r) {
    const double share = 0.25 * static_cast<double>(r);
    for (int64_t c = 0; c < kCols; ++c) {
      const auto i = static_cast<size_t>(r * kCols + c);
      ASSERT_NEAR(got[i], share * from[i] + (1 - share) * to[i], 1e-6) << r << " " << c;
    }
  }
}

// Shares of 0 and 1 give the matrices themselves, to the last bit.
TEST(InterpolateTest, EndsAreExact) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Normal(DType::kF32, {2, 7}, 1), y = HostTensor::Normal(DType::kF32, {2, 7}, 2),
                   out(DType::kF32, {2, 7});
  for (const float share : {0.0f, 1.0f}) {
    const HostTensor a = HostTensor::Filled(DType::kF32, {2}, static_cast<double>(share));
    Interpolate({.a = a, .x = x, .y = y, .out = out}, stream);
    EXPECT_EQ(out.ToDoubles(), (share == 0.0f ? y : x).ToDoubles());
  }
}

TEST(InterpolateTest, NeitherThreadsNorDeviceShowInABit) {
  const auto body = [](Stream& stream) {
    const HostTensor a = HostTensor::Normal(DType::kF32, {67}, 3), x = HostTensor::Normal(DType::kF32, {67, 93}, 1),
                     y = HostTensor::Normal(DType::kF32, {67, 93}, 2), out(DType::kF32, {67, 93});
    Interpolate({.a = a, .x = x, .y = y, .out = out}, stream);
    return out.Bytes();
  };
  testing::ExpectSameBitsForAnyThreadCount(body);
  testing::ExpectSameBitsAsOnCpu(body);
}

}  // namespace
}  // namespace trainyard::kernels
