#include "kernels/codec/level_code.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/codec/level_fit.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

constexpr PhiloxKey kKey{1, 2, 3, kRandomCodec, 4};

struct Setting {
  LevelFormat format;
  PhiloxKey random = kKey;
  int64_t first_element = 0;
  int threads = 1;
};

std::vector<uint8_t> Encode(const std::vector<float>& x, const Setting& setting) {
  testing::TestStream stream(setting.threads);
  const int64_t n = static_cast<int64_t>(x.size());
  const HostTensor wire(DType::kU8, {setting.format.WireOf(n).bytes()});
  const HostTensor values(DType::kF32, {n});
  std::copy(x.begin(), x.end(), values.as<float>());
  LevelEncode({.x = values,
               .wire = wire,
               .format = setting.format,
               .random = setting.random,
               .first_element = setting.first_element},
              stream);
  return wire.Bytes();
}

std::vector<float> Decode(const std::vector<uint8_t>& bytes, int64_t n, const LevelFormat& format, int threads = 1) {
  testing::TestStream stream(threads);
  const HostTensor y = HostTensor::Filled(DType::kF32, {n}, 1e9);
  const HostTensor wire(DType::kU8, {static_cast<int64_t>(bytes.size())});
  std::copy(bytes.begin(), bytes.end(), wire.as<uint8_t>());
  LevelDecode({.wire = wire, .y = y, .format = format}, stream);
  return {y.as<float>(), y.as<float>() + n};
}

std::vector<float> RoundTrip(const std::vector<float>& x, const Setting& setting) {
  return Decode(Encode(x, setting), static_cast<int64_t>(x.size()), setting.format);
}

std::vector<float> Normal(int64_t n, uint64_t seed) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {n}, seed);
  return {x.as<float>(), x.as<float>() + n};
}

double RelativeError(const std::vector<float>& x, const std::vector<float>& y) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += std::pow(static_cast<double>(x[i]) - y[i], 2);
    norm += std::pow(static_cast<double>(x[i]), 2);
  }
  return error / norm;
}

// The value of one element by the definition, in the order the header gives.
float Expected(float x, float norm, float draw, const std::vector<float>& levels) {
  if (!(norm > 0)) return 0.0f;
  const float u = std::fabs(x) / norm;
  size_t j = 0;
  while (j + 1 < levels.size() && levels[j + 1] <= u) ++j;
  if (j + 1 < levels.size() && draw * (levels[j + 1] - levels[j]) < u - levels[j]) ++j;
  const float magnitude = levels[j] * norm;
  return x < 0 ? -magnitude : magnitude;
}

TEST(LevelCodeTest, BitsAreASignAndAnIndex) {
  EXPECT_EQ(LevelBits(2), 2);
  EXPECT_EQ(LevelBits(3), 3);
  EXPECT_EQ(LevelBits(4), 3);
  EXPECT_EQ(LevelBits(8), 4);
  EXPECT_EQ(LevelBits(9), 5);
  EXPECT_EQ(LevelBits(128), 8);
}

TEST(LevelCodeTest, KnownBytes) {
  // L-inf norm 4, levels 0, 1/2, 1: values on levels, so nothing is drawn. Codes 0, 1, 2, 1|4, 2|4, 0.
  const std::vector<float> levels = {0, 0.5f, 1};
  const std::vector<float> x = {0, 2, 4, -2, -4, -0.0f};
  const std::vector<uint8_t> wire = Encode(x, {{levels, LevelNorm::kLInf, 64}});
  // 3 bits each, lowest first: 0 | 1<<3 | 2<<6 | 5<<9 | 6<<12 = 0x6A88.
  EXPECT_EQ(wire, (std::vector<uint8_t>{0, 0, 0x80, 0x40, 0x88, 0x6A, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(RoundTrip(x, {{levels, LevelNorm::kLInf, 64}}), x);
  // L2: 3-4-5.
  EXPECT_EQ(BucketNorm(std::vector<float>{3, -4}.data(), 2, LevelNorm::kL2), 5.0f);
}

struct Case {
  std::vector<float> levels;
  LevelNorm norm;
};

class LevelCodeCases : public ::testing::TestWithParam<LevelNorm> {};
INSTANTIATE_TEST_SUITE_P(Norms, LevelCodeCases, ::testing::Values(LevelNorm::kL2, LevelNorm::kLInf));

// Every table size around the powers of two (both searches), lengths, and beginnings.
TEST_P(LevelCodeCases, ValuesAreTheFormulaOfEachElement) {
  const std::vector<float> all = Normal(1500, 7);
  for (const int steps : {1, 2, 3, 4, 6, 7, 8, 15, 16, 21, 31, 63, 100, 127}) {
    for (const bool is_uniform : {true, false}) {
      const std::vector<float> levels = is_uniform ? UniformLevels(steps) : ExponentialLevels(steps);
      for (const int64_t n : {1, 7, 64, 200, 1500}) {
        for (const int64_t first : {0, 3, 1001}) {
          const std::vector<float> x(all.begin(), all.begin() + n);
          const LevelFormat format{levels, GetParam(), 128};
          const std::vector<float> y = RoundTrip(x, {format, kKey, first});
          for (int64_t i = 0; i < n; ++i) {
            const int64_t begin = i / 128 * 128;
            const float norm = BucketNorm(x.data() + begin, std::min<int64_t>(128, n - begin), GetParam());
            const float draw = ToUniform(RandomWord(kKey, static_cast<uint64_t>(first + i)));
            ASSERT_EQ(y[static_cast<size_t>(i)], Expected(x[static_cast<size_t>(i)], norm, draw, levels))
                << steps << " steps, n " << n << ", element " << i;
          }
        }
      }
    }
  }
}

TEST_P(LevelCodeCases, SameBytesForAnyThreads) {
  const std::vector<float> x = Normal(200'003, 3);
  const std::vector<float> levels = ExponentialLevels(7);
  const LevelFormat format{levels, GetParam(), 64};
  const std::vector<uint8_t> one = Encode(x, {format, kKey, 5, 1});
  EXPECT_TRUE(one == Encode(x, {format, kKey, 5, 3}));
  EXPECT_TRUE(Decode(one, 200'003, format) == Decode(one, 200'003, format, 3));
}

TEST_P(LevelCodeCases, SameBitsAsOnTheCpu) {
  for (const int steps : {1, 3, 7, 15, 31, 100}) {
    const std::vector<float> levels = ExponentialLevels(steps);
    const LevelFormat format{levels, GetParam(), 64};
    for (const int64_t n : {0, 1, 9, 65, 1001}) {
      for (const int64_t shift : {0, 1, 4}) {
        const HostTensor all = HostTensor::Normal(DType::kF32, {n + shift}, 47);
        if (n > 600) {
          all.as<float>()[shift + 70] = std::nanf("");
          all.as<float>()[shift + 570] = -HUGE_VALF;
          std::fill_n(all.as<float>() + shift + 640, 64, -0.0f);
        }
        testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
          const int64_t bytes = format.WireOf(n).bytes();
          const HostTensor memory(DType::kU8, {bytes + shift});
          const TensorView wire = memory.view().Slice(shift, bytes);
          const HostTensor y = HostTensor::Filled(DType::kF32, {n + shift}, 7);
          LevelEncode({.x = all.view().Slice(shift, n),
                       .wire = wire,
                       .format = format,
                       .random = kKey,
                       .first_element = 5 + shift},
                      stream);
          LevelDecode({.wire = wire, .y = y.view().Slice(shift, n), .format = format}, stream);
          std::vector<uint8_t> all_bytes = memory.Bytes();
          const std::vector<uint8_t> more = y.Bytes();
          all_bytes.insert(all_bytes.end(), more.begin(), more.end());
          all_bytes.push_back(1);  // so that empty shapes compare something
          return all_bytes;
        });
      }
    }
  }
}

TEST_P(LevelCodeCases, PowersOfTwoScaleBitForBit) {
  const std::vector<float> x = Normal(600, 17);
  const std::vector<float> levels = UniformLevels(7);
  const LevelFormat format{levels, GetParam(), 512};
  const std::vector<float> y = RoundTrip(x, {format});
  for (int k = -60; k <= 60; ++k) {
    std::vector<float> scaled(x), expected(y);
    for (float& value : scaled) value = std::ldexp(value, k);
    for (float& value : expected) value = std::ldexp(value, k);
    ASSERT_EQ(RoundTrip(scaled, {format}), expected) << "2^" << k;
  }
}

TEST_P(LevelCodeCases, ZerosStayAndTheLargestIsExactByItsNorm) {
  const std::vector<float> levels = UniformLevels(7);
  const LevelFormat format{levels, GetParam(), 64};
  const std::vector<float> zeros(100, 0.0f);
  EXPECT_EQ(RoundTrip(zeros, {format}), zeros);
  std::vector<float> one(100, 0.0f);
  one[70] = -0.37f;  // alone in its bucket: both norms are its magnitude
  EXPECT_EQ(RoundTrip(one, {format}), one);
  one[70] = 1e-45f;
  EXPECT_EQ(RoundTrip(one, {format}), one);
}

TEST_P(LevelCodeCases, OneBadValueMakesItsBucketNanAndNoOther) {
  const std::vector<float> levels = UniformLevels(7);
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    std::vector<float> x = Normal(300, 41);
    x[200] = bad;
    const std::vector<float> y = RoundTrip(x, {{levels, GetParam(), 128}});
    for (int64_t i = 0; i < 300; ++i) {
      ASSERT_EQ(std::isnan(y[static_cast<size_t>(i)]), i / 128 == 1) << bad << ", " << i;
    }
  }
}

// 10,000 draws: the deviation of a mean is at most norm * gap / 200. And the variance is norm^2 (high - u)(u - low).
TEST_P(LevelCodeCases, UnbiasedWithTheVarianceOfItsLevels) {
  const std::vector<float> x = Normal(64, 23);
  const std::vector<float> levels = {0, 0.05f, 0.2f, 0.21f, 1};
  const LevelFormat format{levels, GetParam(), 64};
  const double norm = static_cast<double>(BucketNorm(x.data(), 64, GetParam()));
  constexpr uint32_t kDraws = 10'000;
  std::vector<double> sum(64, 0.0), squares(64, 0.0);
  for (uint32_t draw = 0; draw < kDraws; ++draw) {
    PhiloxKey random = kKey;
    random.step = draw;
    const std::vector<float> y = RoundTrip(x, {format, random});
    for (size_t i = 0; i < 64; ++i) {
      sum[i] += y[i];
      squares[i] += std::pow(static_cast<double>(y[i]) - x[i], 2);
    }
  }
  for (size_t i = 0; i < 64; ++i) {
    const double u = std::fabs(x[i]) / norm;
    size_t j = 0;
    while (j + 2 < levels.size() && levels[j + 1] <= u) ++j;
    const double gap = static_cast<double>(levels[j + 1]) - levels[j];
    ASSERT_LE(std::fabs(sum[i] / kDraws - x[i]), 5 * norm * gap / 200) << i;
    const double variance = norm * norm * (levels[j + 1] - u) * (u - levels[j]);
    // The spread of a squared error is at most gap^2/2 of it a draw.
    ASSERT_NEAR(squares[i] / kDraws, variance, 5 * norm * norm * gap * gap / 2 / 100 + 1e-12) << i;
  }
}

// Table of quantized-comm.md 2.1, L-inf and L2 columns of fixed tables, bucket 512.
TEST(LevelCodeTest, GaussianErrorsOfTheMethod) {
  const std::vector<float> x = Normal(512 * 1000, 31);
  const auto error = [&](const std::vector<float>& levels, LevelNorm norm) {
    return RelativeError(x, RoundTrip(x, {{levels, norm, 512}}));
  };
  const double linf_uniform[] = {0, 0, 1.59, .197, .0363, .00790, .00185, 0, 1.10e-4};
  const double l2_uniform[] = {0, 0, 17.1, 5.02, 1.58, .379, .0888, 0, .00529};
  const double l2_powers[] = {0, 0, 17.1, 3.52, .0873, .0824, .0824, 0, .0824};
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    const int steps = (1 << (bits - 1)) - 1;
    EXPECT_NEAR(error(UniformLevels(steps), LevelNorm::kLInf) / linf_uniform[bits], 1, 0.03) << bits;
    EXPECT_NEAR(error(UniformLevels(steps), LevelNorm::kL2) / l2_uniform[bits], 1, 0.03) << bits;
    EXPECT_NEAR(error(ExponentialLevels(steps), LevelNorm::kL2) / l2_powers[bits], 1, 0.03) << bits;
  }
  // qoda.md 5.5.
  EXPECT_NEAR(error(ExponentialLevels(7), LevelNorm::kLInf) / 0.0811, 1, 0.02);
}

// The bound of qoda.md 2.3 holds, for any data and both norms: eps = (rho-1)^2/(4 rho) + (l1 D)^2/4 or l1 D - 1.
TEST_P(LevelCodeCases, ExpectedErrorStaysBelowTheBound) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    std::vector<float> x = Normal(64, seed);
    if (seed % 3 == 1)
      for (float& value : x) value = value * value * value;
    if (seed % 3 == 2)
      for (size_t i = 8; i < x.size(); ++i) x[i] = 0;
    const std::vector<float> levels = seed % 2 == 0 ? UniformLevels(static_cast<int>(seed % 14) + 1)
                                                    : ExponentialLevels(static_cast<int>(seed % 9) + 1);
    double rho = 1;
    for (size_t j = 2; j < levels.size(); ++j) rho = std::max(rho, static_cast<double>(levels[j]) / levels[j - 1]);
    const double d = GetParam() == LevelNorm::kL2 ? std::sqrt(64.0) : 64.0 / 8;  // D = d^(1/min(q,2)), q = 2 and inf
    const double l1d = levels[1] * d;
    const double bound = (rho - 1) * (rho - 1) / (4 * rho) + (l1d <= 2 ? l1d * l1d / 4 : l1d - 1);
    LevelHistogram histogram;
    AddToHistogram(x.data(), 64, GetParam(), 64, &histogram);
    double squares = 0;
    for (const float value : x) squares += static_cast<double>(value) * value;
    EXPECT_LE(LevelError(histogram, levels), bound * squares * 1.001) << seed;
  }
}

}  // namespace
}  // namespace trainyard::kernels
