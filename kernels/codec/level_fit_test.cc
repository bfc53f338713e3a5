#include "kernels/codec/level_fit.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;
using Histogram = std::unique_ptr<LevelHistogram>;

// Of a distribution given by the integrals of 1 and of u below u.
Histogram Of(const std::function<double(double)>& mass, const std::function<double(double)>& moment) {
  Histogram histogram = std::make_unique<LevelHistogram>();
  for (int bin = 0; bin < kHistogramBins; ++bin) {
    const double low = bin / static_cast<double>(kHistogramBins);
    const double high = (bin + 1) / static_cast<double>(kHistogramBins);
    histogram->mass[static_cast<size_t>(bin)] = mass(high) - mass(low);
    histogram->moment[static_cast<size_t>(bin)] = moment(high) - moment(low);
  }
  return histogram;
}

Histogram Uniform() {
  return Of([](double u) { return u; }, [](double u) { return u * u / 2; });
}

// Density 2 (1 - u).
Histogram Falling() {
  return Of([](double u) { return 2 * u - u * u; }, [](double u) { return u * u - 2 * u * u * u / 3; });
}

Histogram Gaussian(LevelNorm norm, int64_t buckets, uint64_t seed = 1) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {512 * buckets}, seed);
  Histogram histogram = std::make_unique<LevelHistogram>();
  AddToHistogram(x.as<float>(), 512 * buckets, norm, 512, histogram.get());
  return histogram;
}

// Relative squared error of Gaussian data with these levels: Psi over sum x^2, which for f64 is the same for both
// norms.
double RelativeError(const LevelHistogram& histogram, const std::vector<float>& levels, int64_t buckets,
                     uint64_t seed = 1) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {512 * buckets}, seed);
  double squares = 0;
  for (int64_t i = 0; i < 512 * buckets; ++i) squares += std::pow(static_cast<double>(x.as<float>()[i]), 2);
  return LevelError(histogram, levels) / squares;
}

void ExpectTable(const std::vector<float>& levels) {
  ASSERT_GE(levels.size(), size_t{2});
  EXPECT_EQ(levels.front(), 0.0f);
  EXPECT_EQ(levels.back(), 1.0f);
  for (size_t j = 1; j < levels.size(); ++j) EXPECT_GE(levels[j] - levels[j - 1], kLevelGap) << j;
}

TEST(LevelTablesTest, UniformAndExponential) {
  EXPECT_EQ(UniformLevels(4), (std::vector<float>{0, 0.25f, 0.5f, 0.75f, 1}));
  EXPECT_EQ(ExponentialLevels(4), (std::vector<float>{0, 0.125f, 0.25f, 0.5f, 1}));
  EXPECT_EQ(UniformLevels(1), (std::vector<float>{0, 1}));
  EXPECT_EQ(ExponentialLevels(1), (std::vector<float>{0, 1}));
  EXPECT_EQ(ExponentialLevels(127)[1], 0x1p-126f);
}

TEST(LevelHistogramTest, WeighsWithTheNormSquared) {
  // Buckets of 64: norms 2 and 8 (L-inf); u = 1/2 and 1, then 1/4, 1.
  std::vector<float> x(128, 0.0f);
  x[0] = 1, x[1] = -2, x[64] = 2, x[65] = 8;
  LevelHistogram histogram;
  AddToHistogram(x.data(), 128, LevelNorm::kLInf, 64, &histogram);
  EXPECT_EQ(histogram.mass[0], 62 * 4.0 + 62 * 64.0);
  EXPECT_EQ(histogram.mass[2048], 4.0);
  EXPECT_EQ(histogram.mass[1024], 64.0);
  EXPECT_EQ(histogram.mass[4095], 4.0 + 64.0);
  EXPECT_EQ(histogram.moment[2048], 2.0);
  EXPECT_EQ(histogram.moment[4095], 68.0);
  EXPECT_EQ(histogram.total(), 64 * 4.0 + 64 * 64.0);
}

TEST(LevelHistogramTest, LeavesOutWhatHasNoNorm) {
  std::vector<float> x(192, 1.0f);
  std::fill_n(x.begin() + 64, 64, 0.0f);
  x[130] = std::numeric_limits<float>::infinity();
  LevelHistogram histogram;
  AddToHistogram(x.data(), 192, LevelNorm::kL2, 64, &histogram);
  EXPECT_EQ(histogram.total(), 64 * 64.0);
}

// Psi is what encoding loses: exact for the data themselves, not only in the limit of the bins.
TEST(LevelErrorTest, IsTheExpectedErrorOfTheData) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {4096}, 3);
  for (const LevelNorm norm : {LevelNorm::kL2, LevelNorm::kLInf}) {
    LevelHistogram histogram;
    AddToHistogram(x.as<float>(), 4096, norm, 256, &histogram);
    for (const std::vector<float>& levels : {UniformLevels(3), UniformLevels(15), ExponentialLevels(7)}) {
      double expected = 0;
      for (int64_t begin = 0; begin < 4096; begin += 256) {
        const double n = static_cast<double>(BucketNorm(x.as<float>() + begin, 256, norm));
        for (int64_t i = begin; i < begin + 256; ++i) {
          const double u = std::fabs(static_cast<double>(x.as<float>()[i])) / n;
          size_t j = 0;
          while (j + 2 < levels.size() && levels[j + 1] <= u) ++j;
          expected += n * n * (levels[j + 1] - u) * (u - levels[j]);
        }
      }
      EXPECT_NEAR(LevelError(histogram, levels) / expected, 1, 0.01);
    }
  }
}

// The first moments place the values within their bins: without them u would be the middle of each.
TEST(LevelErrorTest, KnowsWhereInTheBinValuesLie) {
  LevelHistogram histogram;
  const double u = (100 + 0.6) / kHistogramBins;
  histogram.mass[100] = 2;
  histogram.moment[100] = 2 * u;
  EXPECT_NEAR(LevelError(histogram, UniformLevels(1)), 2 * (1 - u) * u, 2e-8);
  EXPECT_NEAR(LevelError(histogram, UniformLevels(8)), 2 * (0.125 - u) * u, 2e-8);
}

// shared/methods/qoda.md 5.4.
TEST(FitLevelsTest, UniformDistributionSpacesEvenly) {
  const std::vector<float> fitted = FitLevels(*Uniform(), ExponentialLevels(4), 200);
  for (size_t j = 0; j < fitted.size(); ++j) EXPECT_NEAR(fitted[j], 0.25 * static_cast<double>(j), 1e-7);
}

TEST(FitLevelsTest, FallingDensityHasItsClosedForm) {
  const Histogram falling = Falling();
  const std::vector<float> fitted = FitLevels(*falling, UniformLevels(2), 1);
  EXPECT_NEAR(fitted[1], 1 - 1 / std::sqrt(3.0), 1e-7);
  EXPECT_NEAR(LevelError(*falling, fitted), 0.03836661, 1e-8);
  EXPECT_NEAR(LevelError(*falling, UniformLevels(2)), 1.0 / 24, 1e-12);
}

TEST(FitLevelsTest, EverySweepLowersPsi) {
  for (const LevelNorm norm : {LevelNorm::kL2, LevelNorm::kLInf}) {
    const Histogram histogram = Gaussian(norm, 50);
    std::vector<float> levels = ExponentialLevels(15);
    double error = LevelError(*histogram, levels);
    for (int sweep = 0; sweep < 40; ++sweep) {
      levels = FitLevels(*histogram, levels, 1);
      ExpectTable(levels);
      const double next = LevelError(*histogram, levels);
      EXPECT_LE(next, error * (1 + 1e-6)) << sweep;  // levels are rounded to float in between
      error = next;
    }
  }
}

// qoda.md 5.5 and the adapted columns of quantized-comm.md 2.1.
TEST(RefitLevelsTest, GaussianOptimum) {
  constexpr int64_t kBuckets = 2000;
  const Histogram linf = Gaussian(LevelNorm::kLInf, kBuckets);
  const std::vector<float> fitted = RefitLevels(*linf, UniformLevels(7));
  const double expected[] = {0, .090, .183, .283, .394, .526, .702, 1};
  for (size_t j = 0; j < 8; ++j) EXPECT_NEAR(fitted[j], expected[j], 0.004) << j;
  EXPECT_NEAR(RelativeError(*linf, fitted, kBuckets) / 0.0236, 1, 0.02);
  EXPECT_NEAR(RelativeError(*linf, UniformLevels(7), kBuckets) / 0.0362, 1, 0.02);
  EXPECT_NEAR(RelativeError(*linf, ExponentialLevels(7), kBuckets) / 0.0811, 1, 0.02);
  EXPECT_NEAR(RelativeError(*linf, RefitLevels(*linf, UniformLevels(3)), kBuckets) / 0.135, 1, 0.03);
  EXPECT_NEAR(RelativeError(*linf, RefitLevels(*linf, UniformLevels(15), 200), kBuckets) / 0.00507, 1, 0.03);

  const Histogram l2 = Gaussian(LevelNorm::kL2, kBuckets);
  EXPECT_NEAR(RelativeError(*l2, UniformLevels(7), kBuckets) / 1.58, 1, 0.02);
  EXPECT_NEAR(RelativeError(*l2, ExponentialLevels(7), kBuckets) / 0.087, 1, 0.02);
  EXPECT_NEAR(RelativeError(*l2, RefitLevels(*l2, UniformLevels(7)), kBuckets) / 0.0363, 1, 0.02);
  EXPECT_NEAR(RelativeError(*l2, RefitLevels(*l2, UniformLevels(3)), kBuckets) / 0.292, 1, 0.03);
  EXPECT_NEAR(RelativeError(*l2, RefitLevels(*l2, UniformLevels(15), 200), kBuckets) / 0.00684, 1, 0.03);
}

// What was fitted on one sample must hold on another: the whole chain with real encoding.
TEST(RefitLevelsTest, FittedLevelsEncodeOtherDataWithThatError) {
  const std::vector<float> levels = RefitLevels(*Gaussian(LevelNorm::kLInf, 500, 1), UniformLevels(7));
  const int64_t n = 512 * 500;
  const HostTensor x = HostTensor::Normal(DType::kF32, {n}, 2);
  const HostTensor y(DType::kF32, {n});
  const LevelFormat format{levels, LevelNorm::kLInf, 512};
  const HostTensor wire(DType::kU8, {format.WireOf(n).bytes()});
  testing::TestStream stream(1);
  LevelEncode({.x = x, .wire = wire, .format = format, .random = {.seed = 5, .purpose = kRandomCodec}}, stream);
  LevelDecode({.wire = wire, .y = y, .format = format}, stream);
  double error = 0, norm = 0;
  for (int64_t i = 0; i < n; ++i) {
    error += std::pow(static_cast<double>(x.as<float>()[i]) - y.as<float>()[i], 2);
    norm += std::pow(static_cast<double>(x.as<float>()[i]), 2);
  }
  EXPECT_NEAR(error / norm / 0.0236, 1, 0.02);
}

TEST(RefitLevelsTest, KeepsTheOldUnlessPsiDropsByMoreThanOnePercent) {
  const Histogram histogram = Gaussian(LevelNorm::kLInf, 200);
  const std::vector<float> optimal = RefitLevels(*histogram, UniformLevels(7), 300);
  EXPECT_NE(optimal, UniformLevels(7));
  // A little off the optimum: not worth a change. Far off: worth one.
  std::vector<float> near(optimal), far(optimal);
  near[3] += 0.005f;
  far[3] += 0.06f;
  ASSERT_GT(LevelError(*histogram, near), LevelError(*histogram, optimal));
  ASSERT_LT(LevelError(*histogram, near), LevelError(*histogram, optimal) * 1.009);
  EXPECT_EQ(RefitLevels(*histogram, near), near);
  ASSERT_GT(LevelError(*histogram, far), LevelError(*histogram, optimal) * 1.02);
  EXPECT_NE(RefitLevels(*histogram, far), far);
  // Nothing seen: nothing changes.
  EXPECT_EQ(RefitLevels(*std::make_unique<LevelHistogram>(), near), near);
}

// Distributions that pull levels together: all mass in one bin, at the ends, in two points.
TEST(RefitLevelsTest, TablesStayStrictlyIncreasing) {
  for (const std::vector<int>& bins : std::vector<std::vector<int>>{{0}, {4095}, {2000}, {0, 4095}, {1, 2}}) {
    for (const int steps : {1, 2, 7, 127}) {
      LevelHistogram histogram;
      for (const int bin : bins) {
        histogram.mass[static_cast<size_t>(bin)] = 1;
        histogram.moment[static_cast<size_t>(bin)] = (bin + 0.3) / kHistogramBins;
      }
      for (const std::vector<float>& start : {UniformLevels(steps), ExponentialLevels(steps)}) {
        ExpectTable(FitLevels(histogram, start, 50));
        const std::vector<float> fitted = RefitLevels(histogram, start);
        EXPECT_EQ(fitted.back(), 1.0f);
        EXPECT_TRUE(std::is_sorted(fitted.begin(), fitted.end()));
        EXPECT_LE(LevelError(histogram, fitted), LevelError(histogram, start));
      }
    }
  }
}

}  // namespace
}  // namespace trainyard::kernels
