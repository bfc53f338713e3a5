// Evidence 4 of influence-distillation.md.
#include "kernels/transform/random_projection.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/tangent/random_direction.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using Kind = RandomProjection::Kind;
using testing::HostTensor;

std::vector<float> Normal(int64_t length, uint32_t tensor) {
  std::vector<float> out(static_cast<size_t>(length));
  FillDirection({.seed = 3, .tensor = tensor}, 0, length, out.data());
  return out;
}

HostTensor TensorOf(const std::vector<float>& values) {
  HostTensor tensor(DType::kF32, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), tensor.as<float>());
  return tensor;
}

std::vector<float> ValuesOf(const HostTensor& tensor) {
  const float* values = tensor.as<float>();
  return {values, values + tensor.view().size()};
}

// What a projection of the device under test gives.
RandomProjection Projection(Kind kind, int64_t length, int64_t outputs, uint64_t seed) {
  return RandomProjection(kind, length, outputs, seed, testing::DeviceUnderTest());
}

double Inner(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

std::vector<float> Apply(const RandomProjection& projection, const std::vector<float>& x, Stream& stream) {
  const HostTensor in = TensorOf(x);
  const HostTensor scratch(DType::kF32, {projection.scratch_size()}), out(DType::kF32, {projection.outputs()});
  projection.Apply(static_cast<float*>(in.view().data()), static_cast<float*>(scratch.view().data()),
                   static_cast<float*>(out.view().data()), stream);
  return ValuesOf(out);
}

TEST(WalshHadamardTest, IsTheSylvesterMatrix) {
  testing::TestStream stream(1);
  for (const int64_t size : {1, 2, 4, 8, 64, 512}) {
    const std::vector<float> x = Normal(size, 1);
    const HostTensor data = TensorOf(x);
    WalshHadamard(data.as<float>(), size, stream);
    const std::vector<float> y = ValuesOf(data);
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
  const std::vector<float> x = Normal(kSize, 2);
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor data = TensorOf(x);
    WalshHadamard(data.as<float>(), kSize, stream);
    std::vector<uint8_t> once = data.Bytes();
    EXPECT_NE(ValuesOf(data), x);
    WalshHadamard(data.as<float>(), kSize, stream);
    const std::vector<float> twice = ValuesOf(data);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::abs(double{twice[i]} - double{x[i]}));
    EXPECT_LT(worst, 1e-5);
    return once;
  });
}

// The order of the butterflies is one, however many of them a pass takes.
TEST(WalshHadamardTest, SameBitsAsOnTheCpu) {
  for (const int64_t size : {4, 32, 2048, 4096, 8192, 16384, 32768, 131072}) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      const HostTensor data = TensorOf(Normal(size, 4));
      WalshHadamard(data.as<float>(), size, stream);
      return data.Bytes();
    });
  }
}

TEST(RandomProjectionTest, AllRowsOfTheTransformKeepInnerProducts) {
  testing::TestStream stream(1);
  for (const int64_t length : {1, 2, 3, 100, 128, 1000}) {
    const std::vector<float> x = Normal(length, 1), y = Normal(length, 2);
    const RandomProjection projection = Projection(Kind::kHadamard, length, 1 << 20, 9);
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
      const RandomProjection projection = Projection(kind, kLength, kOutputs, seed);
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

// The closed form; 3000 seeds put the relative standard error of a variance near 3 %, 800 near 5 %.
TEST(RandomProjectionTest, RademachersVarianceIsTheClosedForm) {
  constexpr int64_t kLength = 12, kOutputs = 8;
  const uint64_t seeds = testing::DeviceUnderTest() == Device::kCpu ? 3000 : 800;
  testing::TestStream stream(1);
  const std::vector<float> x = Normal(kLength, 1), y = Normal(kLength, 2);
  double sum = 0, squares = 0;
  for (uint64_t seed = 0; seed < seeds; ++seed) {
    const RandomProjection projection = Projection(Kind::kRademacher, kLength, kOutputs, seed);
    const double inner = Inner(Apply(projection, x, stream), Apply(projection, y, stream));
    sum += inner;
    squares += inner * inner;
  }
  double quartic = 0;
  for (size_t i = 0; i < x.size(); ++i) quartic += std::pow(double{x[i]} * double{y[i]}, 2);
  const double expected = (Inner(x, x) * Inner(y, y) + std::pow(Inner(x, y), 2) - 2 * quartic) / kOutputs;
  const double mean = sum / static_cast<double>(seeds);
  EXPECT_NEAR((squares / static_cast<double>(seeds) - mean * mean) / expected, 1, 0.15);
}

TEST(RandomProjectionTest, RowsAreDrawnOnceEachAndWithTheProjectorsSeed) {
  testing::TestStream stream(1);
  constexpr int64_t kLength = 64;
  std::vector<float> x = Normal(kLength, 1);
  const RandomProjection all = Projection(Kind::kHadamard, kLength, kLength, 4);
  const RandomProjection some = Projection(Kind::kHadamard, kLength, 20, 4);
  const std::vector<float> whole = Apply(all, x, stream), part = Apply(some, x, stream);
  // Each kept output is a different one of the whole, in order, times sqrt(64 / 20).
  size_t next = 0;
  for (const float value : part) {
    while (next < whole.size() && std::abs(whole[next] * std::sqrt(64.0f / 20.0f) - value) > 1e-6f) ++next;
    ASSERT_LT(next, whole.size());
    ++next;
  }
  const RandomProjection same = Projection(Kind::kHadamard, kLength, 20, 4);
  const RandomProjection other = Projection(Kind::kHadamard, kLength, 20, 5);
  EXPECT_EQ(Apply(same, x, stream), part);
  EXPECT_NE(Apply(other, x, stream), part);
}

TEST(RandomProjectionTest, NoneKeepsTheVector) {
  testing::TestStream stream(1);
  const std::vector<float> x = Normal(7, 1);
  EXPECT_EQ(Apply(Projection(Kind::kNone, 7, 3, 1), x, stream), x);
}

std::vector<uint8_t> BytesOf(const std::vector<float>& values) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  return {bytes, bytes + values.size() * sizeof(float)};
}

TEST(RandomProjectionTest, ThreadsChangeNoBit) {
  const std::vector<float> x = Normal(50'000, 1);
  for (const Kind kind : {Kind::kHadamard, Kind::kRademacher}) {
    testing::ExpectSameBitsForAnyThreadCount(
        [&](Stream& stream) { return BytesOf(Apply(Projection(kind, 50'000, 8, 2), x, stream)); });
  }
}

// Lengths around those that a warp's random words cover; the last with a projection of the CPU on the device's stream.
TEST(RandomProjectionTest, SignsAndRowsAreThoseOfTheCpu) {
  for (const int64_t length : {1, 5, 127, 129, 4096, 4100, 50'000}) {
    const std::vector<float> x = Normal(length, 1);
    for (const bool on_device : {true, false}) {
      testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
        const RandomProjection projection(Kind::kHadamard, length, 100, 2, on_device ? stream.device() : Device::kCpu);
        return BytesOf(Apply(projection, x, stream));
      });
    }
  }
}

// Long enough for a block of several warps; the sums differ in their order alone.
TEST(RandomProjectionTest, RademachersSumsAreThoseOfTheCpu) {
  testing::TestStream stream(1);
  Stream cpu(1);
  const std::vector<float> x = Normal(5000, 1);
  const std::vector<float> sums = Apply(Projection(Kind::kRademacher, 5000, 6, 2), x, stream);
  const std::vector<float> expected = Apply(RandomProjection(Kind::kRademacher, 5000, 6, 2), x, cpu);
  for (size_t j = 0; j < sums.size(); ++j) EXPECT_NEAR(sums[j], expected[j], 2e-4) << j;
}

}  // namespace
}  // namespace trainyard::kernels
