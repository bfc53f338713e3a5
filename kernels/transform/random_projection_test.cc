// Evidence 4 of influence-distillation.md.
#include "kernels/transform/random_projection.h"

#include <cmath>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/tangent/random_direction.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using Kind = RandomProjection::Kind;

std::vector<float> Normal(int64_t length, uint32_t tensor) {
  std::vector<float> out(static_cast<size_t>(length));
  FillDirection({.seed = 3, .tensor = tensor}, 0, length, out.data());
  return out;
}

double Inner(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

std::vector<float> Apply(const RandomProjection& projection, const std::vector<float>& x, Stream& stream) {
  std::vector<float> scratch(static_cast<size_t>(projection.scratch_size()));
  std::vector<float> out(static_cast<size_t>(projection.outputs()));
  projection.Apply(x.data(), scratch.data(), out.data(), stream);
  return out;
}

TEST(WalshHadamardTest, IsTheSylvesterMatrix) {
  testing::TestStream stream(1);
  for (const int64_t size : {1, 2, 8, 64}) {
    const std::vector<float> x = Normal(size, 1);
    std::vector<float> y = x;
    WalshHadamard(y.data(), size, stream);
    for (size_t i = 0; i < y.size(); ++i) {
      double sum = 0;
      for (size_t j = 0; j < x.size(); ++j) sum += (__builtin_popcountll(i & j) % 2 == 0 ? 1.0 : -1.0) * double{x[j]};
      EXPECT_NEAR(double{y[i]}, sum / std::sqrt(static_cast<double>(size)), 1e-5);
    }
  }
}

// Longer than one cache block, so the long strides run too; twice is the identity.
TEST(WalshHadamardTest, TwiceIsTheIdentityOnAnyNumberOfThreads) {
  constexpr int64_t kSize = 1 << 16;
  Stream one(1), three(3);
  const std::vector<float> x = Normal(kSize, 2);
  std::vector<float> a = x, b = x;
  WalshHadamard(a.data(), kSize, one);
  WalshHadamard(b.data(), kSize, three);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, x);
  WalshHadamard(a.data(), kSize, one);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::abs(double{a[i]} - double{x[i]}));
  EXPECT_LT(worst, 1e-5);
}

TEST(RandomProjectionTest, AllRowsOfTheTransformKeepInnerProducts) {
  testing::TestStream stream(1);
  for (const int64_t length : {1, 2, 3, 100, 128, 1000}) {
    const std::vector<float> x = Normal(length, 1), y = Normal(length, 2);
    const RandomProjection projection(Kind::kHadamard, length, 1 << 20, 9);
    const std::vector<float> px = Apply(projection, x, stream), py = Apply(projection, y, stream);
    const double scale = std::sqrt(Inner(x, x) * Inner(y, y));
    EXPECT_NEAR(Inner(px, py) / scale, Inner(x, y) / scale, 1e-6);
    EXPECT_NEAR(Inner(px, px) / Inner(x, x), 1, 1e-6);
  }
}

// The length is no power of two: with sqrt(length / k) as the scale instead of sqrt(N / k) the mean is 100 / 128 of
// what it should be, many standard errors off.
TEST(RandomProjectionTest, InnerProductsAreRightOnAverage) {
  constexpr int64_t kLength = 100, kOutputs = 16;
  constexpr int kSeeds = 200;
  testing::TestStream stream(1);
  std::vector<float> x = Normal(kLength, 1), y = Normal(kLength, 2);
  for (size_t i = 0; i < y.size(); ++i) y[i] += x[i];
  for (const Kind kind : {Kind::kHadamard, Kind::kRademacher}) {
    double sum = 0, squares = 0;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const RandomProjection projection(kind, kLength, kOutputs, seed);
      const double inner = Inner(Apply(projection, x, stream), Apply(projection, y, stream));
      sum += inner;
      squares += inner * inner;
    }
    const double mean = sum / kSeeds;
    const double deviation = std::sqrt(squares / kSeeds - mean * mean);
    EXPECT_NEAR(mean, Inner(x, y), 4 * deviation / std::sqrt(double{kSeeds}));
    EXPECT_LT(4 * deviation / std::sqrt(double{kSeeds}), 0.2 * Inner(x, y));  // sharp enough to see a wrong scale
  }
}

// The closed form; 3000 seeds put the relative standard error of a variance near 3 %.
TEST(RandomProjectionTest, RademachersVarianceIsTheClosedForm) {
  constexpr int64_t kLength = 12, kOutputs = 8;
  constexpr int kSeeds = 3000;
  testing::TestStream stream(1);
  const std::vector<float> x = Normal(kLength, 1), y = Normal(kLength, 2);
  double sum = 0, squares = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const RandomProjection projection(Kind::kRademacher, kLength, kOutputs, seed);
    const double inner = Inner(Apply(projection, x, stream), Apply(projection, y, stream));
    sum += inner;
    squares += inner * inner;
  }
  double quartic = 0;
  for (size_t i = 0; i < x.size(); ++i) quartic += std::pow(double{x[i]} * double{y[i]}, 2);
  const double expected = (Inner(x, x) * Inner(y, y) + std::pow(Inner(x, y), 2) - 2 * quartic) / kOutputs;
  const double mean = sum / kSeeds;
  EXPECT_NEAR((squares / kSeeds - mean * mean) / expected, 1, 0.15);
}

TEST(RandomProjectionTest, RowsAreDrawnOnceEachAndWithTheProjectorsSeed) {
  testing::TestStream stream(1);
  constexpr int64_t kLength = 64;
  std::vector<float> x = Normal(kLength, 1);
  const RandomProjection all(Kind::kHadamard, kLength, kLength, 4), some(Kind::kHadamard, kLength, 20, 4);
  const std::vector<float> whole = Apply(all, x, stream), part = Apply(some, x, stream);
  // Each kept output is a different one of the whole, in order, times sqrt(64 / 20).
  size_t next = 0;
  for (const float value : part) {
    while (next < whole.size() && std::abs(whole[next] * std::sqrt(64.0f / 20.0f) - value) > 1e-6f) ++next;
    ASSERT_LT(next, whole.size());
    ++next;
  }
  const RandomProjection same(Kind::kHadamard, kLength, 20, 4), other(Kind::kHadamard, kLength, 20, 5);
  EXPECT_EQ(Apply(same, x, stream), part);
  EXPECT_NE(Apply(other, x, stream), part);
}

TEST(RandomProjectionTest, NoneKeepsTheVector) {
  testing::TestStream stream(1);
  const std::vector<float> x = Normal(7, 1);
  EXPECT_EQ(Apply(RandomProjection(Kind::kNone, 7, 3, 1), x, stream), x);
}

TEST(RandomProjectionTest, ThreadsChangeNoBit) {
  Stream one(1), three(3);
  const std::vector<float> x = Normal(50'000, 1);
  for (const Kind kind : {Kind::kHadamard, Kind::kRademacher}) {
    const RandomProjection projection(kind, 50'000, 64, 2);
    EXPECT_EQ(Apply(projection, x, one), Apply(projection, x, three));
  }
}

}  // namespace
}  // namespace trainyard::kernels
