#include "kernels/codec/squared_distance.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

TEST(SquaredDistanceTest, MatchesExtendedPrecisionForAnyThreads) {
  for (const int64_t n : {0, 1, 31, 32, 33, 5000, 100'003}) {
    const HostTensor a = HostTensor::Normal(DType::kF32, {n}, 1, 100);
    const HostTensor b = HostTensor::Normal(DType::kF32, {n}, 2, 1e-3);
    long double distance = 0, norm = 0;
    for (int64_t i = 0; i < n; ++i) {
      distance += std::pow(static_cast<long double>(a.as<float>()[i]) - b.as<float>()[i], 2.0L);
      norm += std::pow(static_cast<long double>(a.as<float>()[i]), 2.0L);
    }
    testing::TestStream one(1), three(3);
    Stream cpu(1);
    EXPECT_NEAR(SquaredDistance({a, b}, one), static_cast<double>(distance), 1e-13 * static_cast<double>(distance));
    EXPECT_NEAR(SquaredNorm(a, one), static_cast<double>(norm), 1e-13 * static_cast<double>(norm));
    EXPECT_EQ(SquaredDistance({a, b}, one), SquaredDistance({a, b}, three));
    EXPECT_EQ(SquaredNorm(a, one), SquaredNorm(a, three));
    EXPECT_EQ(SquaredDistance({a, b}, one), SquaredDistance({a, b}, cpu));
    EXPECT_EQ(SquaredNorm(a, one), SquaredNorm(a, cpu));
  }
}

// What f32 sums, or f32 differences, lose.
TEST(SquaredDistanceTest, TinyAndHugeDifferences) {
  testing::TestStream stream(1);
  const HostTensor a = HostTensor::Of(DType::kF32, {3}, {16777216, 3e38, 1e-30});
  const HostTensor b = HostTensor::Of(DType::kF32, {3}, {0.5, -3e38, 0});
  const double first = 16777215.5, second = 2 * static_cast<double>(3e38f), third = static_cast<double>(1e-30f);
  EXPECT_DOUBLE_EQ(SquaredDistance({a.view().Slice(0, 1), b.view().Slice(0, 1)}, stream), first * first);
  EXPECT_DOUBLE_EQ(SquaredDistance({a.view().Slice(1, 1), b.view().Slice(1, 1)}, stream), second * second);
  EXPECT_DOUBLE_EQ(SquaredDistance({a.view().Slice(2, 1), b.view().Slice(2, 1)}, stream), third * third);
}

TEST(SquaredDistanceTest, NanShows) {
  testing::TestStream stream(2);
  const HostTensor a = HostTensor::Of(DType::kF32, {3}, {1, std::nan(""), 2});
  const HostTensor b(DType::kF32, {3});
  EXPECT_TRUE(std::isnan(SquaredDistance({a, b}, stream)));
  EXPECT_TRUE(std::isnan(SquaredNorm(a, stream)));
}

}  // namespace
}  // namespace trainyard::kernels
