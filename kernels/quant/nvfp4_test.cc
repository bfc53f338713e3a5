#include "kernels/quant/nvfp4.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/quant/abs_max.h"
#include "kernels/quant/e2m1.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;
using testing::OpCase;

constexpr NvFormat kNearest{.method = NvMethod::kNearest};
constexpr NvFormat kFourOverSix{};
constexpr NvFormat kStochastic{.method = NvMethod::kStochastic};
constexpr NvFormat kStochasticFourOverSix{.method = NvMethod::kStochasticFourOverSix};
constexpr NvFormat kMsEden{.method = NvMethod::kMsEden};
constexpr NvFormat kMsEden128{.method = NvMethod::kMsEden, .eden_group = 128};
constexpr NvFormat kMsEdenNoClip{.method = NvMethod::kMsEden, .eden_clip = 6.0f * 16 / 17};
constexpr NvFormat kSquare{.method = NvMethod::kNearest, .block = NvBlock::k16x16};
constexpr NvFormat kSquareFourOverSix{.block = NvBlock::k16x16};

struct Quantized {
  Quantized(const HostTensor& x, const NvFormat& format, Stream& stream, PhiloxKey random = {.purpose = kRandomTest})
      : amax(DType::kF32, {1}),
        tensor_scale(DType::kF32, {1}),
        packed(DType::kU8, {x.view().dim(0), x.view().dim(1) / 2}),
        scales(DType::kF8E4M3, {x.view().dim(0), x.view().dim(1) / 16}),
        values(HostTensor::Filled(x.view().dtype(), {x.view().dim(0), x.view().dim(1)}, 99)) {
    AbsMax({.x = x, .y = amax}, stream);
    NvQuantize({.x = x,
                .amax = amax,
                .format = format,
                .random = random,
                .tensor_scale = tensor_scale,
                .packed = packed,
                .scales = scales,
                .values = values},
               stream);
  }
  explicit Quantized(const HostTensor& x, const NvFormat& format = {}, PhiloxKey random = {.purpose = kRandomTest})
      : Quantized(x, format, kOneThread(), random) {}
  static Stream& kOneThread() {
    static testing::TestStream stream(1);
    return stream;
  }
  // What x is represented by.
  std::vector<double> Represented() const {
    std::vector<double> y = values.ToDoubles();
    for (double& value : y) value *= static_cast<double>(tensor_scale.as<float>()[0]);
    return y;
  }
  double Scale(int64_t group) const { return WidenToFloat(scales.as<Float8E4M3>()[group]); }

  HostTensor amax, tensor_scale, packed, scales, values;
};

// One row of 16 or more, the rest zeros.
HostTensor Row(std::vector<double> values, int64_t cols = 16) {
  values.resize(static_cast<size_t>(cols), 0);
  return HostTensor::Of(DType::kF32, {1, cols}, values);
}

// quartet2.md 5.1.
TEST(E4M3Test, TableAndWorstCase) {
  double worst = 0;
  for (uint8_t code = 0; code <= 0x7E; ++code) {
    const double value = WidenToFloat(Float8E4M3{code});
    if (code == 1) {
      EXPECT_EQ(value, 0x1p-9);
    }
    if (code == 0x7E) {
      EXPECT_EQ(value, 448);
    }
    if (value < 0x1p-6 || code == 0x7E) continue;
    const float middle = static_cast<float>(value + WidenToFloat(Float8E4M3{static_cast<uint8_t>(code + 1)})) / 2;
    const double rounded = WidenToFloat(RoundNearest<Float8E4M3>(middle, Overflow::kSaturate));
    worst = std::max(worst, static_cast<double>(middle) / rounded);
  }
  EXPECT_EQ(worst, 1.0625);
}

// quartet2.md 5.2.
TEST(NvQuantizeTest, FourOverSixKeepsTheBetterScale) {
  const auto first = [](const std::vector<double>& group, const NvFormat& format) {
    std::vector<double> y = Quantized(Row(group), format).Represented();
    y.resize(4);
    for (double& value : y) value = std::round(value * 1e5) / 1e5;
    return y;
  };
  EXPECT_EQ(first({6, 5}, kNearest), (std::vector<double>{6, 4, 0, 0}));
  EXPECT_EQ(first({6, 5}, kFourOverSix), (std::vector<double>{6, 4.5, 0, 0}));
  EXPECT_EQ(first({6, 3, 1.5, 0.5}, kFourOverSix), (std::vector<double>{6, 3, 1.5, 0.5}));
  EXPECT_EQ(first({6, 3, 1.5, 0.5}, kNearest), (std::vector<double>{6, 3, 1.5, 0.5}));
  EXPECT_EQ(Quantized(Row({6, 5}), kFourOverSix).Scale(0), 384);
  EXPECT_EQ(Quantized(Row({6, 3, 1.5, 0.5}), kFourOverSix).Scale(0), 256);
}

// quartet2.md 5.3.
TEST(NvQuantizeTest, MsEdenOfOneMagnitude) {
  const HostTensor x = HostTensor::Filled(DType::kF32, {256, 1024}, 1);
  for (int64_t i = 0; i < x.view().size(); i += 3) x.as<float>()[i] = -1;
  testing::TestStream stream(2);
  const Quantized q(x, kMsEden, stream);
  const std::vector<double> y = q.Represented();
  int64_t up = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const double magnitude = std::abs(y[i]);
    const bool is_up = magnitude > 1;
    ASSERT_NEAR(magnitude, is_up ? 1.111684 : 0.988164, 1e-6);
    ASSERT_EQ(y[i] < 0, i % 3 == 0);
    up += is_up ? 1 : 0;
  }
  // 16384 groups: standard error 0.0023.
  EXPECT_NEAR(static_cast<double>(up) / static_cast<double>(y.size()), 0.095825, 3 * 0.0023);
}

// H S x over runs of 128, and back.
void Rotate(const std::vector<double>& signs, bool backward, double* run) {
  for (size_t i = 0; i < 128 && !backward; ++i) run[i] *= signs[i];
  for (size_t half = 1; half < 128; half *= 2) {
    for (size_t i = 0; i < 128; ++i) {
      if ((i & half) != 0) continue;
      const double a = run[i];
      const double b = run[i + half];
      run[i] = a + b;
      run[i + half] = a - b;
    }
  }
  for (size_t i = 0; i < 128; ++i) run[i] *= (backward ? signs[i] : 1) / std::sqrt(128.0);
}

// The mean of `draws` de-rotated quantizations of x, runs of 128, each draw with its words and, unless they are frozen,
// its signs.
std::vector<double> MeanOfDraws(const std::vector<double>& x, const NvFormat& format, int draws, bool frozen = false) {
  std::vector<double> sum(x.size(), 0);
  for (int draw = 0; draw < draws; ++draw) {
    const PhiloxKey key{.seed = 17, .step = static_cast<uint32_t>(frozen ? 0 : draw), .purpose = kRandomTest};
    std::vector<double> signs;
    for (uint64_t i = 0; i < 128; ++i) signs.push_back(RandomWord(key, i) >> 31 != 0 ? -1 : 1);
    std::vector<double> rotated = x;
    for (size_t run = 0; run < x.size(); run += 128) Rotate(signs, false, rotated.data() + run);
    const HostTensor v = HostTensor::Of(DType::kF32, {static_cast<int64_t>(x.size()) / 128, 128}, rotated);
    const Quantized q(v, format, {.seed = 19, .step = static_cast<uint32_t>(draw), .purpose = kRandomTest});
    std::vector<double> back = q.Represented();
    for (size_t run = 0; run < x.size(); run += 128) Rotate(signs, true, back.data() + run);
    for (size_t i = 0; i < x.size(); ++i) sum[i] += back[i] / draws;
  }
  return sum;
}

double ErrorOfMean(const NvFormat& format, int draws, bool frozen = false) {
  const std::vector<double> x = HostTensor::Normal(DType::kF32, {8, 128}, 13).ToDoubles();
  const std::vector<double> mean = MeanOfDraws(x, format, draws, frozen);
  double error = 0;
  double square = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += (mean[i] - x[i]) * (mean[i] - x[i]);
    square += x[i] * x[i];
  }
  return error / square;
}

// quartet2.md 5.4: with a Hadamard rotation MS-EDEN is not exactly unbiased; this vector shows by how much.
TEST(NvQuantizeTest, MsEdenCounterExample) {
  if (testing::DeviceUnderTest() == Device::kCuda) {
    GTEST_SKIP() << "millions of draws, slow on an emulated device; SameBitsAsOnCpu says that they are the CPU's";
  }
  std::vector<double> x(128, 0);
  x[0] = 1;
  x[1] = 0.1;
  const std::vector<double> mean = MeanOfDraws(x, kMsEden, 20000);
  EXPECT_NEAR(mean[0], 101.0 / 102, 0.001);
  EXPECT_NEAR(mean[1], 101.0 / 510, 0.001);
}

// quartet2.md 5.6: falls as 1/B; frozen signs stop at the error of one rotation.
TEST(NvQuantizeTest, BiasOfTheMean) {
  if (testing::DeviceUnderTest() == Device::kCuda) {
    GTEST_SKIP() << "millions of draws, slow on an emulated device; SameBitsAsOnCpu says that they are the CPU's";
  }
  for (const NvFormat& format : {kMsEden, kMsEden128}) {
    EXPECT_NEAR(ErrorOfMean(format, 1), 9.8e-3, 0.2 * 9.8e-3);
    EXPECT_NEAR(ErrorOfMean(format, 256), 3.9e-5, 0.2 * 3.9e-5);
    EXPECT_LT(ErrorOfMean(format, 4096), 1.25 * 9.8e-3 / 4096);
  }
  EXPECT_NEAR(ErrorOfMean(kStochastic, 1), 2.6e-2, 0.2 * 2.6e-2);
  EXPECT_NEAR(ErrorOfMean(kStochastic, 256), 9.0e-5, 0.2 * 9.0e-5);
  EXPECT_GT(ErrorOfMean(kMsEden, 256, /*frozen=*/true), 7e-3);
}

struct Errors {
  double mse = 0;  // relative
  double shrinkage = 0;
};

Errors ErrorsOnGaussian(const NvFormat& format) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {512, 2048}, 11);
  testing::TestStream stream(2);
  const Quantized q(x, format, stream);
  const double scale = q.tensor_scale.as<float>()[0];
  double square = 0;
  double product = 0;
  double error = 0;
  for (int64_t i = 0; i < x.view().size(); ++i) {
    const double v = x.as<float>()[i];
    const double y = q.values.as<float>()[i] * scale;
    square += v * v;
    product += v * y;
    error += (v - y) * (v - y);
  }
  return {error / square, 1 - product / square};
}

// quartet2.md 5.5, tolerance 1.5 %; the squares: table of section 1.
TEST(NvQuantizeTest, ErrorsOnGaussianValues) {
  if (testing::DeviceUnderTest() == Device::kCuda) {
    GTEST_SKIP() << "millions of draws, slow on an emulated device; SameBitsAsOnCpu says that they are the CPU's";
  }
  const auto check = [](const NvFormat& format, double mse) {
    const Errors errors = ErrorsOnGaussian(format);
    EXPECT_NEAR(errors.mse, mse, 0.015 * mse);
    return errors.shrinkage;
  };
  check(kNearest, 9.06e-3);
  check(kFourOverSix, 7.56e-3);
  EXPECT_NEAR(check(kStochastic, 23.5e-3), 0, 6e-4);
  // The better of two unbiased draws is biased: it is too large. One stream of words for both would give 18.5e-3.
  EXPECT_NEAR(check(kStochasticFourOverSix, 17.5e-3), -7.3e-3, 4e-4);
  EXPECT_NEAR(check(kMsEden, 9.35e-3), 0, 5e-4);
  // One factor for groups of several scales is not that of any of them: a plain simulation in double leaves 5.9e-4.
  EXPECT_NEAR(check(kMsEden128, 9.75e-3), 5.9e-4, 3e-4);
  check(kMsEdenNoClip, 10.6e-3);
  check(kSquare, 12.4e-3);
  check(kSquareFourOverSix, 12.4e-3);
}

// quartet2.md 2.2: the alternative wins in 45 % of the groups.
TEST(NvQuantizeTest, HowOftenFourWins) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {512, 1024}, 3);
  testing::TestStream stream(1);
  const Quantized q(x, kFourOverSix, stream);
  int64_t four = 0;
  for (int64_t g = 0; g < x.view().size() / 16; ++g) {
    float largest = 0;
    for (int64_t i = 16 * g; i < 16 * g + 16; ++i) largest = std::max(largest, std::abs(x.as<float>()[i]));
    const float six = largest / 6 / q.tensor_scale.as<float>()[0];
    four += q.Scale(g) > 1.2 * static_cast<double>(six) ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(four) / static_cast<double>(x.view().size() / 16), 0.45, 0.01);
}

// |x / (s8 s32)| <= 6 for every group whose scale is normal: nothing clips, so the mean over draws is x.
TEST(NvQuantizeTest, StochasticMeanIsTheValue) {
  if (testing::DeviceUnderTest() == Device::kCuda) {
    GTEST_SKIP() << "millions of draws, slow on an emulated device; SameBitsAsOnCpu says that they are the CPU's";
  }
  const HostTensor x = HostTensor::Normal(DType::kF32, {1, 64}, 5);
  std::vector<double> sum(64, 0);
  constexpr int kDraws = 20000;
  for (uint32_t draw = 0; draw < kDraws; ++draw) {
    const std::vector<double> y = Quantized(x, kStochastic, {.step = draw, .purpose = kRandomTest}).Represented();
    for (size_t i = 0; i < 64; ++i) sum[i] += y[i] / kDraws;
  }
  // Standard deviation of a draw at most half a gap of 2 units of (at most) 3 / 5.6.
  for (size_t i = 0; i < 64; ++i) EXPECT_NEAR(sum[i], x.ToDoubles()[i], 4 * 0.54 / std::sqrt(kDraws)) << i;
}

TEST(NvQuantizeTest, ZerosTinyTensorsAndNan) {
  for (const NvFormat& format : {kNearest, kFourOverSix, kStochastic, kStochasticFourOverSix, kMsEden}) {
    for (const float size : {0.0f, 1e-40f, 1e-35f}) {
      const Quantized q(HostTensor::Filled(DType::kF32, {1, 32}, static_cast<double>(size)), format);
      EXPECT_EQ(q.tensor_scale.as<float>()[0], 1.0f);
      EXPECT_EQ(q.packed.Bytes(), std::vector<uint8_t>(16, 0));
      EXPECT_EQ(q.Scale(0), 1.0);
    }
    // A group of zeros beside others.
    const Quantized beside(Row({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3}, 32), format);
    EXPECT_EQ(beside.Scale(0), 1.0);
    for (int i = 0; i < 16; ++i) EXPECT_EQ(beside.values.as<float>()[i], 0);
    // The amax is that of the finite group: one from elsewhere.
    const HostTensor x = HostTensor::Normal(DType::kF32, {1, 32}, 1);
    x.as<float>()[3] = std::nanf("");
    const HostTensor amax = HostTensor::Filled(DType::kF32, {1}, 3), scale(DType::kF32, {1});
    NvQuantize({.x = x, .amax = amax, .format = format, .tensor_scale = scale, .values = x}, Quantized::kOneThread());
    for (int i = 0; i < 32; ++i) EXPECT_EQ(std::isnan(x.as<float>()[i]), i < 16);
  }
}

// Delayed amax: scales saturate at 448 and codes at 6, never NaN.
TEST(NvQuantizeTest, AmaxThatIsTooSmallSaturates) {
  for (const NvFormat& format : {kNearest, kFourOverSix, kStochastic, kStochasticFourOverSix, kMsEden}) {
    const HostTensor x = HostTensor::Filled(DType::kF32, {1, 16}, 1000);
    const HostTensor amax = HostTensor::Filled(DType::kF32, {1}, 1), scale(DType::kF32, {1});
    NvQuantize({.x = x, .amax = amax, .format = format, .tensor_scale = scale, .values = x}, Quantized::kOneThread());
    for (const double y : x.ToDoubles()) EXPECT_EQ(y, 6 * 448);
  }
}

// One scale for a square: the transposed matrix has the transposed values.
TEST(NvQuantizeTest, SquaresTranspose) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {48, 32}, 2);
  const HostTensor transposed(DType::kF32, {32, 48});
  for (int64_t r = 0; r < 48; ++r) {
    for (int64_t c = 0; c < 32; ++c) transposed.as<float>()[c * 48 + r] = x.as<float>()[r * 32 + c];
  }
  const Quantized a(x, kSquare);
  const Quantized b(transposed, kSquare);
  for (int64_t r = 0; r < 48; ++r) {
    for (int64_t c = 0; c < 32; ++c) {
      ASSERT_EQ(b.values.as<float>()[c * 48 + r], a.values.as<float>()[r * 32 + c]);
    }
  }
}

class NvCaseTest : public ::testing::TestWithParam<OpCase> {};
INSTANTIATE_TEST_SUITE_P(All, NvCaseTest, ::testing::ValuesIn(testing::OpCases({{16, 128}, {32, 1152}, {48, 384}})),
                         testing::OpCaseName);

// Scales by the formula in double to one step of E4M3 (a quotient may round the other way at a tie), codes from the
// stored scales exactly.
TEST_P(NvCaseTest, MatchesTheFormula) {
  const HostTensor x = HostTensor::Normal(GetParam().dtype, GetParam().shape, 21, 0.02);
  const std::vector<double> v = x.ToDoubles();
  const int64_t cols = GetParam().dim(1);
  for (const NvFormat& format : {kNearest, kFourOverSix, kSquare, kSquareFourOverSix}) {
    const Quantized q(x, format);
    const std::vector<double> values = q.values.ToDoubles();
    const bool has_four = format.method == NvMethod::kFourOverSix;
    const double s32 = static_cast<double>(q.amax.as<float>()[0]) / (6 * (has_four ? 256 : 448));
    ASSERT_NEAR(q.tensor_scale.as<float>()[0], s32, 1e-6 * s32);
    int64_t matched = 0;
    for (int64_t g = 0; g < x.view().size() / 16; ++g) {
      // The group, or the square around it.
      std::vector<double> members;
      const int64_t row = g * 16 / cols;
      const bool is_square = format.block == NvBlock::k16x16;
      for (int64_t r = is_square ? row / 16 * 16 : row; r < (is_square ? row / 16 * 16 + 16 : row + 1); ++r) {
        for (int64_t i = 0; i < 16; ++i) members.push_back(v[static_cast<size_t>(r * cols + g * 16 % cols + i)]);
      }
      double largest = 0;
      for (const double member : members) largest = std::max(largest, std::abs(member));
      const auto scale_of = [&](double times) {
        return static_cast<double>(
            WidenToFloat(RoundNearest<Float8E4M3>(static_cast<float>(times * largest / 6 / s32), Overflow::kSaturate)));
      };
      const auto error_of = [&](double scale) {
        double error = 0;
        for (const double member : members) {
          const double y = scale * s32 * E2M1Value(E2M1Code(static_cast<float>(member / (scale * s32))));
          error += (member - y) * (member - y);
        }
        return error;
      };
      double expected = scale_of(1);
      if (has_four && error_of(scale_of(1.5)) < error_of(expected)) expected = scale_of(1.5);
      matched += q.Scale(g) == expected ? 1 : 0;
      for (int64_t i = 16 * g; i < 16 * g + 16; ++i) {
        const float u = static_cast<float>(v[static_cast<size_t>(i)]) *
                        (1.0f / (static_cast<float>(q.Scale(g)) * q.tensor_scale.as<float>()[0]));
        ASSERT_EQ(values[static_cast<size_t>(i)], E2M1Value(E2M1Code(u)) * q.Scale(g));
      }
    }
    EXPECT_GE(static_cast<double>(matched), 0.999 * static_cast<double>(x.view().size() / 16) - 1);
  }
}

TEST_P(NvCaseTest, SameBitsForAnyThreadsPackedAndInPlace) {
  const std::vector<int64_t>& shape = GetParam().shape;
  const HostTensor x = HostTensor::Normal(GetParam().dtype, shape, 8);
  for (const NvFormat& format :
       {kNearest, kFourOverSix, kStochastic, kStochasticFourOverSix, kMsEden, kMsEden128, kSquareFourOverSix}) {
    testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
      const Quantized q(x, format, stream);
      const HostTensor back = HostTensor::Filled(GetParam().dtype, shape, 5);
      Fp4GroupsDequantize({.packed = q.packed, .scales = q.scales, .values = back}, stream);
      EXPECT_EQ(back.Bytes(), q.values.Bytes());
      const HostTensor in_place = x.Copy();
      NvQuantize({.x = in_place,
                  .amax = q.amax,
                  .format = format,
                  .random = {.purpose = kRandomTest},
                  .tensor_scale = q.tensor_scale,
                  .values = in_place},
                 stream);
      EXPECT_EQ(in_place.Bytes(), q.values.Bytes());
      std::vector<uint8_t> all = q.values.Bytes();
      for (const HostTensor* more : {&q.packed, &q.scales, &q.tensor_scale}) {
        const std::vector<uint8_t> bytes = more->Bytes();
        all.insert(all.end(), bytes.begin(), bytes.end());
      }
      return all;
    });
  }
}

// An operand that has a scale already: codes and values as without it, the scale behind them its product.
TEST_P(NvCaseTest, AScaleOfTheInputGoesIntoThatOfTheTensor) {
  const HostTensor x = HostTensor::Normal(GetParam().dtype, GetParam().shape, 8);
  const HostTensor x_scale = HostTensor::Filled(DType::kF32, {1}, 0.3);
  for (const NvFormat& format : {kNearest, kMsEden, kSquareFourOverSix}) {
    const Quantized q(x, format);
    const HostTensor values(GetParam().dtype, GetParam().shape), scale(DType::kF32, {1});
    NvQuantize({.x = x,
                .amax = q.amax,
                .x_scale = x_scale,
                .format = format,
                .random = {.purpose = kRandomTest},
                .tensor_scale = scale,
                .values = values},
               Quantized::kOneThread());
    EXPECT_EQ(values.Bytes(), q.values.Bytes());
    EXPECT_EQ(scale.as<float>()[0], q.tensor_scale.as<float>()[0] * 0.3f);
  }
}

TEST_P(NvCaseTest, SameBitsAsOnCpu) {
  const HostTensor x = HostTensor::Normal(GetParam().dtype, GetParam().shape, 9, 0.3);
  for (int64_t i = 0; i < 32; ++i) {  // two groups of zeros
    if (GetParam().dtype == DType::kF32) x.as<float>()[64 + i] = 0;
    if (GetParam().dtype == DType::kBF16) x.as<BFloat16>()[64 + i].bits = 0;
  }
  for (const NvFormat& format : {kNearest, kFourOverSix, kStochastic, kStochasticFourOverSix, kMsEden, kMsEden128,
                                 kMsEdenNoClip, kSquare, kSquareFourOverSix}) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      const Quantized q(x, format, stream, {.seed = 4, .step = 3, .purpose = kRandomTest, .tensor = 2});
      std::vector<uint8_t> all = q.values.Bytes();
      for (const HostTensor* more : {&q.packed, &q.scales, &q.tensor_scale}) {
        const std::vector<uint8_t> bytes = more->Bytes();
        all.insert(all.end(), bytes.begin(), bytes.end());
      }
      return all;
    });
  }
}

}  // namespace
}  // namespace trainyard::kernels
