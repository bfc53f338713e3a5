#include "kernels/codec/maxmin.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

constexpr PhiloxKey kKey{1, 2, 3, kRandomCodec, 4};

struct Setting {
  MaxminFormat format;
  CodeRounding rounding = CodeRounding::kStochastic;
  PhiloxKey random = kKey;
  int64_t first_element = 0;
  int threads = 1;
};

HostTensor Values(const std::vector<float>& x) {
  const HostTensor values(DType::kF32, {static_cast<int64_t>(x.size())});
  std::copy(x.begin(), x.end(), values.as<float>());
  return values.Copy();
}

std::vector<uint8_t> Encode(const std::vector<float>& x, const Setting& setting) {
  testing::TestStream stream(setting.threads);
  const int64_t n = static_cast<int64_t>(x.size());
  const HostTensor wire(DType::kU8, {setting.format.WireOf(n).bytes()});
  const HostTensor values = Values(x);
  MaxminEncode({.x = values,
                .wire = wire,
                .format = setting.format,
                .rounding = setting.rounding,
                .random = setting.random,
                .first_element = setting.first_element},
               stream);
  return wire.Bytes();
}

std::vector<float> Decode(const std::vector<uint8_t>& bytes, int64_t n, const Setting& setting) {
  testing::TestStream stream(setting.threads);
  const HostTensor y = HostTensor::Filled(DType::kF32, {n}, 1e9);
  const HostTensor wire(DType::kU8, {static_cast<int64_t>(bytes.size())});
  std::copy(bytes.begin(), bytes.end(), wire.as<uint8_t>());
  MaxminDecode({.wire = wire, .y = y, .format = setting.format}, stream);
  return {y.as<float>(), y.as<float>() + n};
}

std::vector<float> RoundTrip(const std::vector<float>& x, const Setting& setting) {
  return Decode(Encode(x, setting), static_cast<int64_t>(x.size()), setting);
}

// Statistics of many draws follow from equal bits, and take an emulated device minutes.
bool IsOnDevice() {
  return testing::DeviceUnderTest() == Device::kCuda;
}

std::vector<float> Normal(int64_t n, uint64_t seed, double scale = 1) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {n}, seed, scale);
  return {x.as<float>(), x.as<float>() + n};
}

float UnitOf(const std::vector<uint8_t>& wire, int64_t bucket) {
  float unit;
  std::memcpy(&unit, wire.data() + 8 * bucket, sizeof(unit));
  return unit;
}

double SquaredError(const std::vector<float>& x, const MaxminFormat& format, CodeRounding rounding, int threads = 1) {
  testing::TestStream stream(threads);
  const HostTensor values = Values(x);
  return MaxminSquaredError({.x = values, .format = format, .rounding = rounding}, stream);
}

// shared/methods/quantized-comm.md 5.1.
TEST(MaxminTest, KnownBytes) {
  const std::vector<uint8_t> two = Encode({0, 1, 2, 3}, {{2, 64}});
  const std::vector<uint8_t> expected_two = {0, 0, 0x80, 0x3F, 0, 0, 0, 0, 0xE4, 0, 0, 0, 0, 0, 0, 0};
  EXPECT_EQ(two, expected_two);
  EXPECT_EQ(RoundTrip({0, 1, 2, 3}, {{2, 64}}), (std::vector<float>{0, 1, 2, 3}));
  const std::vector<uint8_t> three = Encode({-3, -1, 1, 3, 5, 7, 9, 11}, {{3, 64}});
  EXPECT_EQ(UnitOf(three, 0), 2.0f);
  EXPECT_EQ((std::vector<uint8_t>(three.begin() + 8, three.end())),
            (std::vector<uint8_t>{0x88, 0xC6, 0xFA, 0, 0, 0, 0, 0}));
}

class MaxminBitsTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Bits, MaxminBitsTest, ::testing::Range(1, 9));

// Codes of a plain loop over the formula; every length, any first element, several buckets.
TEST_P(MaxminBitsTest, CodesAreTheFormulaOfEachElement) {
  const int bits = GetParam();
  const int32_t steps = (1 << bits) - 1;
  const std::vector<float> all = Normal(2500, 11);
  for (const CodeRounding rounding : {CodeRounding::kStochastic, CodeRounding::kNearest}) {
    for (const int64_t n : {1, 2, 7, 8, 9, 63, 64, 65, 200, 1027, 2500}) {
      for (const int64_t bucket_size : {64, 512, 8192}) {
        for (const int64_t first : {0, 1, 2, 3, 5, 1001}) {
          const std::vector<float> x(all.begin(), all.begin() + n);
          const MaxminFormat format{bits, bucket_size};
          const std::vector<uint8_t> wire = Encode(x, {format, rounding, kKey, first});
          std::vector<uint8_t> expected(wire.size(), 0);
          const int64_t codes_offset = format.WireOf(n).codes_offset();
          for (int64_t begin = 0; begin < n; begin += bucket_size) {
            const int64_t end = std::min(n, begin + bucket_size);
            const auto [least, most] = std::minmax_element(x.begin() + begin, x.begin() + end);
            const MaxminBucket bucket = MakeMaxminBucket(*least, *most, true, steps);
            std::memcpy(expected.data() + begin / bucket_size * 8, &bucket, sizeof(bucket));
            for (int64_t i = begin; i < end && bucket.unit > 0; ++i) {
              const float draw = rounding == CodeRounding::kNearest
                                     ? kNearestDraw
                                     : ToUniform(RandomWord(kKey, static_cast<uint64_t>(first + i)));
              const int32_t code = MaxminCode(x[static_cast<size_t>(i)], bucket, draw, steps);
              for (int bit = 0; bit < bits; ++bit) {
                const int64_t at = i * bits + bit;
                expected[static_cast<size_t>(codes_offset + at / 8)] |=
                    static_cast<uint8_t>((code >> bit & 1) << at % 8);
              }
            }
          }
          ASSERT_EQ(wire, expected) << bits << " bits, n " << n << ", bucket " << bucket_size << ", first " << first;
          const std::vector<float> y = Decode(wire, n, {format});
          for (int64_t i = 0; i < n; ++i) {
            MaxminBucket bucket;
            std::memcpy(&bucket, wire.data() + i / bucket_size * 8, sizeof(bucket));
            int32_t code = 0;
            for (int bit = 0; bit < bits; ++bit) {
              const int64_t at = i * bits + bit;
              code |= (wire[static_cast<size_t>(codes_offset + at / 8)] >> at % 8 & 1) << bit;
            }
            ASSERT_EQ(y[static_cast<size_t>(i)], std::fma(bucket.unit, static_cast<float>(code), bucket.minimum));
          }
        }
      }
    }
  }
}

TEST_P(MaxminBitsTest, SameBytesForAnyThreads) {
  const std::vector<float> x = Normal(200'003, 3);
  const std::vector<uint8_t> one = Encode(x, {{GetParam(), 64}, CodeRounding::kStochastic, kKey, 5, 1});
  const std::vector<uint8_t> three = Encode(x, {{GetParam(), 64}, CodeRounding::kStochastic, kKey, 5, 3});
  EXPECT_TRUE(one == three);
  EXPECT_TRUE(Decode(one, 200'003, {{GetParam(), 64}}) ==
              Decode(one, 200'003, {{GetParam(), 64}, CodeRounding::kStochastic, kKey, 0, 3}));
}

// 5.2; an absolute threshold or a unit of 1 for constants fails.
TEST_P(MaxminBitsTest, ConstantBucketsAreExact) {
  for (const float value : {0.0f, 1.0f, -1.0f, 0.1f, -3e38f, 1e-38f, 1e-45f}) {
    for (const int64_t n : {1, 64, 100, 513, 100'000}) {
      const std::vector<float> x(static_cast<size_t>(n), value);
      ASSERT_EQ(RoundTrip(x, {{GetParam(), 512}}), x) << value;
    }
  }
}

// 5.3: an absolute epsilon fails.
TEST_P(MaxminBitsTest, PowersOfTwoScaleBitForBit) {
  const std::vector<float> x = Normal(1500, 17);
  const std::vector<float> y = RoundTrip(x, {{GetParam(), 512}});
  for (int k = -60; k <= 60; ++k) {
    std::vector<float> scaled(x), expected(y);
    for (float& value : scaled) value = std::ldexp(value, k);
    for (float& value : expected) value = std::ldexp(value, k);
    ASSERT_EQ(RoundTrip(scaled, {{GetParam(), 512}}), expected) << "2^" << k;
  }
}

TEST_P(MaxminBitsTest, ShiftsMoveTheValuesOnly) {
  const std::vector<float> x = Normal(512, 19);
  const std::vector<float> y = RoundTrip(x, {{GetParam(), 512}});
  std::vector<float> shifted(x);
  for (float& value : shifted) value += 3.0f;
  const std::vector<uint8_t> wire = Encode(shifted, {{GetParam(), 512}});
  const std::vector<float> z = Decode(wire, 512, {{GetParam(), 512}});
  int moved = 0;  // an ulp of the shift may carry a value past its draw
  for (size_t i = 0; i < x.size(); ++i) moved += std::fabs(z[i] - 3.0f - y[i]) > 1e-5f ? 1 : 0;
  EXPECT_LE(moved, 2);
}

// 5.5: 10,000 draws of one bucket; the mean's deviation is at most unit/200, so 5 of those.
double WorstBias(const std::vector<float>& x, int bits, CodeRounding rounding) {
  constexpr uint32_t kDraws = 10'000;
  std::vector<double> sum(x.size(), 0.0);
  float unit = 0;
  for (uint32_t draw = 0; draw < kDraws; ++draw) {
    PhiloxKey random = kKey;
    random.step = draw;
    const Setting setting{{bits, 64}, rounding, random};
    const std::vector<uint8_t> wire = Encode(x, setting);
    unit = UnitOf(wire, 0);
    const std::vector<float> y = Decode(wire, static_cast<int64_t>(x.size()), setting);
    for (size_t i = 0; i < x.size(); ++i) sum[i] += y[i];
  }
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) worst = std::max(worst, std::fabs(sum[i] / kDraws - x[i]) / unit);
  return worst;
}

TEST_P(MaxminBitsTest, StochasticIsUnbiasedAndNearestIsNot) {
  if (IsOnDevice()) GTEST_SKIP() << "held on the CPU";
  const std::vector<float> x = Normal(64, 23);
  EXPECT_LE(WorstBias(x, GetParam(), CodeRounding::kStochastic), 5.0 / 200);
  EXPECT_GT(WorstBias(x, GetParam(), CodeRounding::kNearest), 5.0 / 200);
}

// 5.6: the error of a bucket is what the draws average to, and what nearest does exactly.
TEST_P(MaxminBitsTest, SquaredErrorIsTheExpectation) {
  if (IsOnDevice()) GTEST_SKIP() << "held on the CPU";
  const std::vector<float> x = Normal(1000, 29);
  const MaxminFormat format{GetParam(), 256};
  double mean = 0;
  constexpr uint32_t kDraws = 2000;
  const auto error_of = [&](const Setting& setting) {
    const std::vector<float> y = RoundTrip(x, setting);
    double error = 0;
    for (size_t i = 0; i < x.size(); ++i) error += std::pow(static_cast<double>(y[i]) - x[i], 2);
    return error;
  };
  for (uint32_t draw = 0; draw < kDraws; ++draw) {
    PhiloxKey random = kKey;
    random.step = draw;
    mean += error_of({format, CodeRounding::kStochastic, random}) / kDraws;
  }
  // 1000 x 2000 draws: 0.1 % or so.
  EXPECT_NEAR(mean / SquaredError(x, format, CodeRounding::kStochastic), 1, 0.005);
  EXPECT_NEAR(error_of({format, CodeRounding::kNearest}) / SquaredError(x, format, CodeRounding::kNearest), 1, 1e-4);
  EXPECT_EQ(SquaredError(Normal(1'000'000, 1), format, CodeRounding::kStochastic, 1),
            SquaredError(Normal(1'000'000, 1), format, CodeRounding::kStochastic, 3));
}

// Table 2.1: relative squared error of Gaussian data, bucket 512.
TEST_P(MaxminBitsTest, GaussianErrorOfTheMethod) {
  if (IsOnDevice()) GTEST_SKIP() << "held on the CPU";
  const int bits = GetParam();
  const double stochastic[] = {0, 8.26, .692, .1264, .02755, .006445, .001561, 0, 9.53e-5};
  const double nearest[] = {0, 5.36, .348, .0633, .01379, .003223, .000781, 0, 4.76e-5};
  const double steps = (1 << bits) - 1;
  const int64_t n = 512 * 1000;
  const std::vector<float> x = Normal(n, 31);
  double norm = 0;
  for (const float value : x) norm += static_cast<double>(value) * value;
  const double drawn = SquaredError(x, {bits, 512}, CodeRounding::kStochastic) / norm;
  // The closed form, c = E R^2 (1 - 2/B) / (6 S^2) with E R^2 = 37.335 for B = 512; 7 bits are not in the table.
  const double formula = 37.335 * (1 - 2.0 / 512) / (6 * steps * steps);
  if (bits >= 2) {
    EXPECT_NEAR(drawn / formula, 1, 0.03);
  }
  if (bits == 7) return;
  EXPECT_NEAR(drawn / stochastic[bits], 1, 0.03);
  EXPECT_NEAR(SquaredError(x, {bits, 512}, CodeRounding::kNearest) / norm / nearest[bits], 1, 0.03);
  // What is really encoded, not only what is predicted.
  const std::vector<float> y = RoundTrip(x, {{bits, 512}});
  double error = 0;
  for (size_t i = 0; i < x.size(); ++i) error += std::pow(static_cast<double>(y[i]) - x[i], 2);
  EXPECT_NEAR(error / norm / stochastic[bits], 1, 0.03);
}

// Ranges of B normals: E R and E R^2 of the method.
TEST(MaxminTest, RangesOfGaussianBuckets) {
  if (IsOnDevice()) GTEST_SKIP() << "held on the CPU";
  const int64_t sizes[] = {64, 128, 256, 512, 1024, 2048};
  const double mean[] = {4.6875, 5.1892, 5.6537, 6.0878, 6.4965, 6.8836};
  const double square[] = {22.375, 27.276, 32.271, 37.335, 42.450, 47.608};
  const std::vector<float> x = Normal(1 << 21, 37);
  for (size_t s = 0; s < 6; ++s) {
    const std::vector<uint8_t> wire = Encode(x, {{1, sizes[s]}});
    const int64_t buckets = (1 << 21) / sizes[s];
    double sum = 0, squares = 0;
    for (int64_t bucket = 0; bucket < buckets; ++bucket) {
      const double range = static_cast<double>(UnitOf(wire, bucket));
      sum += range;
      squares += range * range;
    }
    const double count = static_cast<double>(buckets);
    EXPECT_NEAR(sum / count / mean[s], 1, 5 * 0.11 / std::sqrt(count)) << sizes[s];
    EXPECT_NEAR(squares / count / square[s], 1, 5 * 0.22 / std::sqrt(count)) << sizes[s];
  }
}

TEST_P(MaxminBitsTest, OneBadValueMakesItsBucketNanAndNoOther) {
  for (const float bad :
       {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    for (const int64_t at : {128, 160, 255, 256 + 43}) {
      std::vector<float> x = Normal(300, 41);
      x[static_cast<size_t>(at)] = bad;
      const std::vector<float> y = RoundTrip(x, {{GetParam(), 128}});
      for (int64_t i = 0; i < 300; ++i) {
        ASSERT_EQ(std::isnan(y[static_cast<size_t>(i)]), i / 128 == at / 128) << bad << " at " << at << ", " << i;
      }
      EXPECT_TRUE(std::isnan(SquaredError(x, {GetParam(), 128}, CodeRounding::kStochastic)));
    }
  }
}

// Lengths that end within a bucket, a group and a byte; wires and vectors of any alignment; what is not finite.
TEST_P(MaxminBitsTest, SameBitsAsOnTheCpu) {
  for (const int64_t n : {0, 1, 9, 65, 513, 3001}) {
    for (const int64_t shift : {0, 1, 4}) {
      const HostTensor all = HostTensor::Normal(DType::kF32, {n + shift}, 47);
      if (n > 600) {
        all.as<float>()[shift + 70] = std::nanf("");
        all.as<float>()[shift + 570] = -HUGE_VALF;
        std::fill_n(all.as<float>() + shift + 1024, 64, -0.0f);
      }
      const TensorView x = all.view().Slice(shift, n);
      for (const CodeRounding rounding : {CodeRounding::kStochastic, CodeRounding::kNearest}) {
        testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
          const MaxminFormat format{GetParam(), 64};
          const int64_t bytes = format.WireOf(n).bytes();
          const HostTensor memory = HostTensor(DType::kU8, {bytes + shift});
          const TensorView wire = memory.view().Slice(shift, bytes);
          const HostTensor y = HostTensor::Filled(DType::kF32, {n + shift}, 7);
          MaxminEncode({.x = x,
                        .wire = wire,
                        .format = format,
                        .rounding = rounding,
                        .random = kKey,
                        .first_element = 3 + shift},
                       stream);
          MaxminDecode({.wire = wire, .y = y.view().Slice(shift, n), .format = format}, stream);
          const double error = MaxminSquaredError({.x = x.Slice(0, n > 600 ? 64 : n), .format = format}, stream);
          std::vector<uint8_t> all_bytes = memory.Bytes();
          for (const std::vector<uint8_t>& more :
               {y.Bytes(), std::vector<uint8_t>(reinterpret_cast<const uint8_t*>(&error),
                                                reinterpret_cast<const uint8_t*>(&error + 1))}) {
            all_bytes.insert(all_bytes.end(), more.begin(), more.end());
          }
          all_bytes.push_back(1);  // so that empty shapes compare something
          return all_bytes;
        });
      }
    }
  }
}

// More than one block of the sum.
TEST(MaxminTest, SquaredErrorHasTheBitsOfTheCpu) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {150'000}, 53);
  for (const CodeRounding rounding : {CodeRounding::kStochastic, CodeRounding::kNearest}) {
    Stream cpu(1);
    testing::TestStream stream(1);
    const MaxminErrorArgs args{.x = x, .format = {3, 512}, .rounding = rounding};
    EXPECT_EQ(MaxminSquaredError(args, stream), MaxminSquaredError(args, cpu));
  }
}

// Ranks, steps, phases and tensors draw apart; the same key draws the same.
TEST(MaxminTest, NoiseDependsOnAllOfTheKey) {
  const std::vector<float> x = Normal(512, 43);
  const std::vector<uint8_t> base = Encode(x, {{4, 512}});
  EXPECT_EQ(base, Encode(x, {{4, 512}}));
  for (const PhiloxKey other : {PhiloxKey{9, 2, 3, kRandomCodec, 4}, PhiloxKey{1, 9, 3, kRandomCodec, 4},
                                PhiloxKey{1, 2, 9, kRandomCodec, 4}, PhiloxKey{1, 2, 3, kRandomCodec, 9}}) {
    const std::vector<uint8_t> wire = Encode(x, {{4, 512}, CodeRounding::kStochastic, other});
    int different = 0;
    for (size_t i = 8; i < wire.size(); ++i) different += wire[i] != base[i] ? 1 : 0;
    EXPECT_GT(different, 64);
  }
}

}  // namespace
}  // namespace trainyard::kernels
