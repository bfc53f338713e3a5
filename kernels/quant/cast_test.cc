#include "kernels/quant/cast.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The value of a finite code by the definition in number_format.h, in double.
template <typename T>
double Decode(uint32_t code) {
  using Format = NumberFormat<T>;
  const uint32_t mantissa = code & ((1u << Format::kMantissaBits) - 1);
  const int exponent = static_cast<int>(code >> Format::kMantissaBits);
  if (exponent == 0) return std::ldexp(mantissa, 1 - Format::kBias - Format::kMantissaBits);
  return std::ldexp(mantissa + (1u << Format::kMantissaBits), exponent - Format::kBias - Format::kMantissaBits);
}

template <typename T>
T Code(uint32_t code) {
  return {static_cast<typename NumberFormat<T>::Bits>(code)};
}

template <typename T>
constexpr uint32_t kSign = 1u << (NumberFormat<T>::kExponentBits + NumberFormat<T>::kMantissaBits);

template <typename T>
class FormatTest : public ::testing::Test {};
using Formats = ::testing::Types<BFloat16, Float16, Float8E4M3, Float8E5M2>;
TYPED_TEST_SUITE(FormatTest, Formats);

TYPED_TEST(FormatTest, EveryCodeWidensToItsValueAndComesBack) {
  using T = TypeParam;
  for (uint32_t code = 0; code <= NumberFormat<T>::kLargest; ++code) {
    const float value = WidenToFloat(Code<T>(code));
    ASSERT_EQ(value, Decode<T>(code)) << code;
    ASSERT_EQ(WidenToFloat(Code<T>(code | kSign<T>)), -value) << code;
    for (const Overflow overflow : {Overflow::kSaturate, Overflow::kInfinity}) {
      ASSERT_EQ(RoundNearest<T>(value, overflow).bits, code);
      ASSERT_EQ(RoundNearest<T>(-value, overflow).bits, code | kSign<T>);
      // What the format can say is never moved, whatever the random word.
      ASSERT_EQ(RoundStochastic<T>(value, 0, overflow).bits, code);
      ASSERT_EQ(RoundStochastic<T>(-value, 0xFFFFFFFF, overflow).bits, code | kSign<T>);
    }
  }
}

TYPED_TEST(FormatTest, NearestBetweenAllNeighboursWithTiesToEven) {
  using T = TypeParam;
  for (uint32_t code = 0; code < NumberFormat<T>::kLargest; ++code) {
    const float middle = static_cast<float>((Decode<T>(code) + Decode<T>(code + 1)) / 2);
    ASSERT_EQ(middle, (Decode<T>(code) + Decode<T>(code + 1)) / 2);
    for (const uint32_t sign : {0u, kSign<T>}) {
      const float s = sign == 0 ? 1.0f : -1.0f;
      ASSERT_EQ(RoundNearest<T>(s * middle).bits, sign | (code % 2 == 0 ? code : code + 1)) << middle;
      ASSERT_EQ(RoundNearest<T>(s * std::nextafter(middle, 0.0f)).bits, sign | code) << middle;
      ASSERT_EQ(RoundNearest<T>(s * std::nextafter(middle, kInfinity)).bits, sign | (code + 1)) << middle;
    }
  }
}

// A word is a uniform number; 4096 evenly spaced ones see the probability of going up to 1/4096. Must hold between
// subnormals and around zero as well (llmq.md, pitfall 3).
TYPED_TEST(FormatTest, StochasticGoesUpWithTheRightProbability) {
  using T = TypeParam;
  const uint32_t stride = sizeof(T) == 1 ? 1 : 509;
  for (uint32_t code = 0; code < NumberFormat<T>::kLargest; code += (code < 8 ? 1 : stride)) {
    const double below = Decode<T>(code);
    const double above = Decode<T>(code + 1);
    for (const double fraction : {0.0625, 0.5, 0.875}) {
      const float x = static_cast<float>(below + fraction * (above - below));
      int up = 0;
      for (uint32_t i = 0; i < 4096; ++i) {
        const uint32_t bits = RoundStochastic<T>(-x, (i << 20) | 0x80000).bits;
        ASSERT_TRUE(bits == (code | kSign<T>) || bits == ((code + 1) | kSign<T>)) << x << " became " << bits;
        up += bits == ((code + 1) | kSign<T>) ? 1 : 0;
      }
      ASSERT_NEAR(up / 4096.0, (static_cast<double>(x) - below) / (above - below), 1.01 / 4096) << x;
    }
  }
}

TYPED_TEST(FormatTest, OverflowInfinityAndNan) {
  using T = TypeParam;
  using Format = NumberFormat<T>;
  const double largest = Decode<T>(Format::kLargest);
  const double step = largest - Decode<T>(Format::kLargest - 1);
  // E4M3's largest code is even, so the tie above it stays; the others end in an odd code, so theirs overflows.
  const float tie = static_cast<float>(largest + step / 2);
  const uint32_t tie_code = Format::kLargest % 2 == 0 ? Format::kLargest : Format::kInfinity;
  EXPECT_EQ(RoundNearest<T>(tie, Overflow::kInfinity).bits, tie_code);
  EXPECT_EQ(RoundNearest<T>(std::nextafter(tie, 0.0f), Overflow::kInfinity).bits, Format::kLargest);
  EXPECT_EQ(RoundNearest<T>(std::nextafter(tie, kInfinity), Overflow::kInfinity).bits, Format::kInfinity);
  for (const float x : {std::nextafter(tie, kInfinity), 3.3e38f, kInfinity}) {
    if (x < largest) continue;
    EXPECT_EQ(RoundNearest<T>(x, Overflow::kSaturate).bits, Format::kLargest);
    EXPECT_EQ(RoundNearest<T>(-x, Overflow::kSaturate).bits, Format::kLargest | kSign<T>);
    EXPECT_EQ(RoundStochastic<T>(x, 0xFFFFFFFF, Overflow::kSaturate).bits, Format::kLargest);
  }
  for (const uint32_t word : {0u, 0xFFFFFFFFu}) {
    EXPECT_EQ(RoundStochastic<T>(kInfinity, word, Overflow::kInfinity).bits, Format::kInfinity);
    EXPECT_EQ(RoundStochastic<T>(-kInfinity, word, Overflow::kSaturate).bits, Format::kLargest | kSign<T>);
    // Every NaN of float, quiet or not, with the lowest and the highest payload.
    for (const uint32_t payload : {0x7F800001u, 0x7FC00000u, 0x7FFFFFFFu}) {
      for (const Overflow overflow : {Overflow::kSaturate, Overflow::kInfinity}) {
        const float nan = __builtin_bit_cast(float, payload);
        const float negative_nan = __builtin_bit_cast(float, payload | 0x80000000);
        EXPECT_EQ(RoundNearest<T>(nan, overflow).bits, Format::kNan);
        EXPECT_EQ(RoundNearest<T>(negative_nan, overflow).bits, Format::kNan | kSign<T>);
        EXPECT_EQ(RoundStochastic<T>(nan, word, overflow).bits, Format::kNan);
      }
    }
  }
  EXPECT_TRUE(std::isnan(WidenToFloat(Code<T>(Format::kNan))));
  if (Format::kInfinity != Format::kNan) {
    EXPECT_EQ(WidenToFloat(Code<T>(Format::kInfinity)), kInfinity);
    EXPECT_EQ(WidenToFloat(Code<T>(Format::kInfinity | kSign<T>)), -kInfinity);
  }
  EXPECT_EQ(RoundNearest<T>(0x1p-149f).bits, 0);
  EXPECT_EQ(RoundNearest<T>(-0.0f).bits, kSign<T>);
}

TEST(Bf16Test, NearestAgreesWithTheStorageConversion) {
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 4099) {
    const float x = __builtin_bit_cast(float, static_cast<uint32_t>(bits));
    if (std::isnan(x)) continue;
    ASSERT_EQ(RoundNearest<BFloat16>(x).bits, FromFloat<BFloat16>(x).bits) << x;
  }
}

double RelativeSquaredError(const HostTensor& x, Rounding rounding, Stream& stream) {
  const HostTensor codes(DType::kF8E4M3, {x.view().size()});
  const HostTensor back(DType::kF32, {x.view().size()});
  Narrow({.x = x, .y = codes, .scale = 1, .rounding = rounding, .random = {.seed = 3, .purpose = kRandomTest}}, stream);
  Widen({.x = codes, .y = back}, stream);
  const std::vector<double> original = x.ToDoubles();
  const std::vector<double> rounded = back.ToDoubles();
  double error = 0;
  double square = 0;
  for (size_t i = 0; i < original.size(); ++i) {
    error += (rounded[i] - original[i]) * (rounded[i] - original[i]);
    square += original[i] * original[i];
  }
  return error / square;
}

// llmq.md section 5: Gaussian data with 4 sigma at 448. 2^18 samples put 1 % well beyond five standard errors.
TEST(Fp8Test, GaussianErrorOfE4M3) {
  testing::TestStream stream(2);
  const HostTensor x = HostTensor::Normal(DType::kF32, {1 << 18}, 11, 448.0 / 4);
  const double nearest = RelativeSquaredError(x, Rounding::kNearestEven, stream);
  const double stochastic = RelativeSquaredError(x, Rounding::kStochastic, stream);
  EXPECT_NEAR(nearest, 7.0e-4, 0.02 * 7.0e-4);
  EXPECT_NEAR(stochastic, 1.40e-3, 0.02 * 1.40e-3);
  EXPECT_NEAR(stochastic / nearest, 2.0, 0.03);
}

// The mean over 2^16 roundings of one value, drawn by element index: standard error of at most step / 2 / 256.
TEST(Fp8Test, StochasticMeanIsTheValueAlsoForSubnormals) {
  testing::TestStream stream(2);
  for (const double value : {3.3e-4, 0.0011, 0.0049, 0.0151, 1.03, 300.0}) {
    const HostTensor x = HostTensor::Filled(DType::kF32, {1 << 16}, value);
    const HostTensor codes(DType::kF8E4M3, {1 << 16});
    const HostTensor back(DType::kF32, {1 << 16});
    Narrow({.x = x, .y = codes, .rounding = Rounding::kStochastic, .random = {.seed = 5, .purpose = kRandomTest}},
           stream);
    Widen({.x = codes, .y = back}, stream);
    double sum = 0;
    for (double y : back.ToDoubles()) sum += y;
    const double step = std::max(std::exp2(std::floor(std::log2(value)) - 3), 0x1p-9);
    EXPECT_NEAR(sum / (1 << 16), value, 5 * step / 2 / 256) << value;
  }
}

class CastTest : public ::testing::TestWithParam<DType> {};

// Element i is the one-value rule with RandomWord(key, i), whatever the length, the threads and the input's dtype.
TEST_P(CastTest, OpIsTheOneValueRule) {
  const PhiloxKey key{.seed = 7, .step = 2, .purpose = kRandomTest, .tensor = 9};
  for (const int64_t count : {int64_t{0}, int64_t{1}, int64_t{7}, int64_t{1025}, int64_t{40003}}) {
    for (const DType x_dtype : {DType::kF32, DType::kBF16}) {
      const HostTensor x = HostTensor::Normal(x_dtype, {count}, 1, 0.02);
      const std::vector<double> values = x.ToDoubles();
      for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
        const auto run = [&](Stream& stream) {
          const HostTensor y(GetParam(), {count});
          Narrow({.x = x, .y = y, .scale = 0.7f, .rounding = rounding, .random = key}, stream);
          return y.Bytes();
        };
        std::vector<uint8_t> expected;
        for (size_t i = 0; i < values.size(); ++i) {
          const float scaled = static_cast<float>(values[i]) * 0.7f;
          const uint32_t word = RandomWord(key, i);
          const auto append = [&](auto type) {
            using T = decltype(type);
            const T code = rounding == Rounding::kNearestEven ? RoundNearest<T>(scaled, Overflow::kSaturate)
                                                              : RoundStochastic<T>(scaled, word, Overflow::kSaturate);
            for (size_t byte = 0; byte < sizeof(T); ++byte) {
              expected.push_back(static_cast<uint8_t>(code.bits >> (8 * byte)));
            }
          };
          switch (GetParam()) {
            case DType::kBF16:
              append(BFloat16{});
              break;
            case DType::kF16:
              append(Float16{});
              break;
            case DType::kF8E4M3:
              append(Float8E4M3{});
              break;
            default:
              append(Float8E5M2{});
          }
        }
        for (int threads : {1, 2, 3}) {
          testing::TestStream stream(threads);
          EXPECT_EQ(run(stream), expected) << count << " elements, " << threads << " threads";
        }
      }
    }
  }
}

TEST_P(CastTest, AllZeroStaysZeroUnderAHugeScale) {
  testing::TestStream stream(1);
  const HostTensor x(DType::kF32, {17});
  const HostTensor y(GetParam(), {17});
  Narrow({.x = x, .y = y, .scale = 448e10f}, stream);  // amax 0 gives this scale (llmq.md section 5)
  for (uint8_t byte : y.Bytes()) EXPECT_EQ(byte, 0);
}

TEST_P(CastTest, WidenScales) {
  testing::TestStream stream(2);
  const HostTensor x = HostTensor::Of(DType::kF32, {5}, {1, -2, 0.5, 448, 0});
  const HostTensor codes(GetParam(), {5});
  const HostTensor back(DType::kF32, {5});
  Narrow({.x = x, .y = codes}, stream);
  Widen({.x = codes, .y = back, .scale = 0.25f}, stream);
  EXPECT_EQ(back.ToDoubles(), (std::vector<double>{0.25, -0.5, 0.125, 112, 0}));
}

// Also where vectors do not lie aligned and rows end in the middle of one, for infinities and subnormals.
TEST_P(CastTest, SameBitsAsOnCpu) {
  const PhiloxKey key{.seed = 7, .step = 2, .purpose = kRandomTest, .tensor = 9};
  for (const int64_t count : {int64_t{1}, int64_t{7}, int64_t{1026}}) {
    for (const int64_t offset : {0, 1}) {
      for (const DType x_dtype : {DType::kF32, DType::kBF16}) {
        std::vector<double> values = HostTensor::Normal(DType::kF32, {count + offset}, 1, 0.02).ToDoubles();
        if (count > 100) {
          for (size_t i = 0; i < 60; ++i)
            values[3 * i] = std::ldexp(i % 2 == 0 ? 1.25 : -1.75, static_cast<int>(i) - 40);
          values[200] = double{kInfinity};
          values[301] = -double{kInfinity};
        }
        const HostTensor x = HostTensor::Of(x_dtype, {count + offset}, values);
        for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
          for (const Overflow overflow : {Overflow::kSaturate, Overflow::kInfinity}) {
            testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
              const HostTensor y(GetParam(), {count + offset}), back(DType::kF32, {count + offset});
              const TensorView codes = y.view().Slice(offset, count);
              Narrow({.x = x.view().Slice(offset, count),
                      .y = codes,
                      .scale = 0.7f,
                      .rounding = rounding,
                      .overflow = overflow,
                      .random = key},
                     stream);
              // Without infinity E4M3 has NaN instead, and which NaN a product makes is the device's choice.
              if (overflow == Overflow::kSaturate) {
                Widen({.x = codes, .y = back.view().Slice(offset, count), .scale = 0.3f}, stream);
              }
              std::vector<uint8_t> all = y.Bytes();
              const std::vector<uint8_t> more = back.Bytes();
              all.insert(all.end(), more.begin(), more.end());
              return all;
            });
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, CastTest, ::testing::Values(DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kF8E5M2),
                         [](const auto& info) { return std::string(Name(info.param)); });

}  // namespace
}  // namespace trainyard::kernels
