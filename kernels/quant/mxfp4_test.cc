#include "kernels/quant/mxfp4.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/quant/e2m1.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;
using testing::OpCase;

constexpr MxFormat kQuest{};
constexpr MxFormat kQuestRms{.spread = MxSpread::kRootMeanSquare};
constexpr MxFormat kQuestNearest{.exponent = E8M0Rounding::kNearest};
constexpr MxFormat kQuestCeil{.exponent = E8M0Rounding::kCeil};
constexpr MxFormat kAbsMax{.scale = MxScale::kAbsMax};
constexpr MxFormat kAbsMaxPlain{.scale = MxScale::kAbsMax, .range = 1};
constexpr MxFormat kAbsMaxStochastic{.scale = MxScale::kAbsMax, .rounding = Rounding::kStochastic};

struct Quantized {
  Quantized(const HostTensor& v, const MxFormat& format, Stream& stream, PhiloxKey random = {.purpose = kRandomTest})
      : packed(DType::kU8, {v.view().dim(0), v.view().dim(1) / 2}),
        scales(DType::kU8, {v.view().dim(0), v.view().dim(1) / 32}),
        values(HostTensor::Filled(v.view().dtype(), {v.view().dim(0), v.view().dim(1)}, 99)),
        mask(DType::kU8, {v.view().dim(0), v.view().dim(1) / 8}) {
    MxQuantize({.v = v,
                .format = format,
                .random = random,
                .packed = packed,
                .scales = scales,
                .values = values,
                .mask = mask},
               stream);
  }
  Quantized(const HostTensor& v, const MxFormat& format) : Quantized(v, format, kOneThread()) {}
  static Stream& kOneThread() {
    static testing::TestStream stream(1);
    return stream;
  }
  bool AllInside() const {
    for (const uint8_t byte : mask.Bytes()) {
      if (byte != 0xFF) return false;
    }
    return true;
  }
  HostTensor packed, scales, values, mask;
};

// Row j of the 32 x 32 Hadamard matrix times `size`: what x = sqrt(32) e_j becomes when it is rotated.
HostTensor HadamardRow(int64_t j, double size = 1) {
  std::vector<double> values;
  for (int64_t i = 0; i < 32; ++i)
    values.push_back(__builtin_popcountll(static_cast<uint64_t>(i & j)) % 2 ? -size : size);
  return HostTensor::Of(DType::kF32, {1, 32}, values);
}

// quartet.md 5.2: lossless but for j = 0, whose rotation is constant and has no deviation.
TEST(MxQuantizeTest, RotatedOneHotVectors) {
  for (int64_t j = 0; j < 32; ++j) {
    const HostTensor v = HadamardRow(j);
    for (const MxFormat& format : {kQuest, kQuestRms}) {
      const Quantized q(v, format);
      if (j == 0 && format.spread == MxSpread::kStandardDeviation) {
        for (const double y : q.values.ToDoubles()) EXPECT_EQ(y, 6 * 0x1p-27);
        EXPECT_EQ(q.mask.Bytes(), std::vector<uint8_t>(4, 0));
      } else {
        EXPECT_EQ(q.values.ToDoubles(), v.ToDoubles()) << j;
        EXPECT_EQ(q.scales.as<uint8_t>()[0], 125);
        EXPECT_TRUE(q.AllInside());
      }
    }
  }
}

// quartet.md 5.3: u = +-3, with the factor 3/4 and without (+-4).
TEST(MxQuantizeTest, AbsMaxOfOneMagnitudeIsLossless) {
  for (int k = -120; k < 127; ++k) {
    const HostTensor v = HadamardRow(5, std::ldexp(1.0, k));
    for (const MxFormat& format : {kAbsMax, kAbsMaxPlain}) {
      const Quantized q(v, format);
      const std::vector<double> x = v.ToDoubles();
      const std::vector<double> y = q.values.ToDoubles();
      for (size_t i = 0; i < 32; ++i) ASSERT_EQ(y[i] / format.Range(), x[i]) << k;
      ASSERT_EQ(q.scales.as<uint8_t>()[0], k + 125);
    }
  }
}

// |u| < 6 whatever the group: magnitudes are spread over many octaves, and just below a power of two.
TEST(MxQuantizeTest, AbsMaxWithThreeQuartersNeverClips) {
  const HostTensor v = HostTensor::Normal(DType::kF32, {1000, 1024}, 7);
  for (int64_t i = 0; i < v.view().size(); ++i) {
    float& x = v.as<float>()[i];
    x = std::ldexp(x, static_cast<int>((i / 32) % 200) - 100);
    if (i % 96 == 0) x = std::nextafter(std::ldexp(1.0f, static_cast<int>(i % 13) + 90), 0.0f);
  }
  EXPECT_TRUE(Quantized(v, kAbsMax).AllInside());
  EXPECT_FALSE(Quantized(v, kAbsMaxPlain).AllInside());
}

struct Errors {
  double mse = 0;        // relative
  double shrinkage = 0;  // 1 - <x, q> / <x, x>
  double masked = 0;     // share
};

// N(0, sigma^2) with sigma log-uniform over an octave; every group weighs the same.
Errors ErrorsOnGaussian(const MxFormat& format) {
  constexpr int64_t kGroups = 1 << 15;
  const HostTensor v = HostTensor::Normal(DType::kF32, {kGroups, 32}, 11);
  std::vector<double> sigma;
  for (int64_t g = 0; g < kGroups; ++g) {
    sigma.push_back(std::exp2((static_cast<double>(g) + 0.5) / kGroups));
    for (int64_t i = 0; i < 32; ++i) v.as<float>()[g * 32 + i] *= static_cast<float>(sigma.back());
  }
  testing::TestStream stream(2);
  const Quantized q(v, format, stream);
  Errors errors;
  double square = 0;
  double product = 0;
  for (int64_t i = 0; i < kGroups * 32; ++i) {
    const double s = sigma[static_cast<size_t>(i / 32)];
    const double x = v.as<float>()[i] / s;
    const double y = q.values.as<float>()[i] / s / format.Range();
    square += x * x;
    product += x * y;
    errors.mse += (x - y) * (x - y);
    errors.masked += (q.mask.as<uint8_t>()[i / 8] >> (i % 8) & 1) != 0 ? 0 : 1;
  }
  errors.mse /= square;
  errors.shrinkage = 1 - product / square;
  errors.masked /= kGroups * 32;
  return errors;
}

// quartet.md 5.4 and the note in 2.3; tolerance 2 %.
TEST(MxQuantizeTest, ErrorsOnGaussianValues) {
  const auto check = [](const MxFormat& format, double mse) {
    const Errors errors = ErrorsOnGaussian(format);
    EXPECT_NEAR(errors.mse, mse, 0.02 * mse);
    return errors;
  };
  EXPECT_NEAR(check(kAbsMax, 13.7e-3).shrinkage, 0.0095, 3e-4);
  EXPECT_NEAR(check(kAbsMaxStochastic, 27.8e-3).shrinkage, 0.0, 5e-4);
  const Errors floor = check(kQuest, 22.3e-3);
  EXPECT_NEAR(floor.shrinkage, 0.0513, 1e-3);
  EXPECT_NEAR(floor.masked, 0.053, 1e-3);
  EXPECT_NEAR(check(kQuestNearest, 13.4e-3).masked, 0.008, 1e-3);
  check(kQuestCeil, 15.5e-3);
  check(kAbsMaxPlain, 13.3e-3);
}

// H S x for runs of 32, and back.
void Rotate(const std::vector<double>& signs, bool backward, double* run) {
  for (size_t i = 0; i < 32 && !backward; ++i) run[i] *= signs[i];
  for (size_t half = 1; half < 32; half *= 2) {
    for (size_t i = 0; i < 32; ++i) {
      if ((i & half) != 0) continue;
      const double a = run[i];
      const double b = run[i + half];
      run[i] = a + b;
      run[i + half] = a - b;
    }
  }
  for (size_t i = 0; i < 32; ++i) run[i] *= (backward ? signs[i] : 1) / std::sqrt(32.0);
}

// Relative squared error of the mean of `draws` de-rotated quantizations of 64 fixed vectors, each draw with its signs
// and its words.
double ErrorOfMean(const MxFormat& format, int draws) {
  constexpr size_t kSize = 64 * 32;
  const std::vector<double> x = HostTensor::Normal(DType::kF32, {64, 32}, 13).ToDoubles();
  std::vector<double> sum(kSize, 0);
  for (int draw = 0; draw < draws; ++draw) {
    const PhiloxKey key{.seed = 17, .step = static_cast<uint32_t>(draw), .purpose = kRandomTest};
    std::vector<double> signs;
    for (uint64_t i = 0; i < 32; ++i) signs.push_back(RandomWord(key, i) >> 31 != 0 ? -1 : 1);
    std::vector<double> rotated = x;
    for (size_t run = 0; run < 64; ++run) Rotate(signs, false, rotated.data() + 32 * run);
    const HostTensor v = HostTensor::Of(DType::kF32, {64, 32}, rotated);
    Stream& stream = Quantized::kOneThread();
    MxQuantize({.v = v,
                .format = format,
                .random = {.seed = 19, .step = static_cast<uint32_t>(draw), .purpose = kRandomTest},
                .values = v},
               stream);
    std::vector<double> back = v.ToDoubles();
    for (size_t run = 0; run < 64; ++run) Rotate(signs, true, back.data() + 32 * run);
    for (size_t i = 0; i < kSize; ++i) sum[i] += back[i] / static_cast<double>(format.Range());
  }
  double error = 0;
  double square = 0;
  for (size_t i = 0; i < kSize; ++i) {
    error += (sum[i] / draws - x[i]) * (sum[i] / draws - x[i]);
    square += x[i] * x[i];
  }
  return error / square;
}

// quartet.md 5.5: stochastic rounding falls as 1/B, nearest stops at the square of its misalignment.
TEST(MxQuantizeTest, BiasOfTheMean) {
  EXPECT_NEAR(ErrorOfMean(kAbsMaxStochastic, 1), 2.6e-2, 0.15 * 2.6e-2);
  EXPECT_NEAR(ErrorOfMean(kAbsMaxStochastic, 256), 1.1e-4, 0.15 * 1.1e-4);
  EXPECT_NEAR(ErrorOfMean(kAbsMaxStochastic, 4096), 2.8e-2 / 4096, 0.15 * 2.8e-2 / 4096);
  EXPECT_NEAR(ErrorOfMean(kAbsMax, 256), 1.5e-4, 0.15 * 1.5e-4);
  EXPECT_NEAR(ErrorOfMean(kAbsMax, 4096), 9.4e-5, 0.15 * 9.4e-5);
}

TEST(MxQuantizeTest, ZerosAndNotFiniteGroups) {
  for (const MxFormat& format : {kQuest, kQuestRms, kAbsMax, kAbsMaxStochastic}) {
    for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf(""), -std::nanf("")}) {
      const HostTensor v = HostTensor::Normal(DType::kF32, {1, 96}, 1);
      std::fill(v.as<float>(), v.as<float>() + 32, 0.0f);
      v.as<float>()[40] = bad;
      const Quantized q(v, format);
      EXPECT_EQ(q.scales.as<uint8_t>()[0], 0);
      EXPECT_EQ(q.scales.as<uint8_t>()[1], 255);
      for (int i = 0; i < 96; ++i) {
        const float y = q.values.as<float>()[i];
        if (i < 32) {
          EXPECT_EQ(y, 0);
          EXPECT_EQ(q.packed.as<uint8_t>()[i / 2], 0);
        }
        EXPECT_EQ(std::isnan(y), i >= 32 && i < 64);
      }
    }
  }
}

class MxCaseTest : public ::testing::TestWithParam<OpCase> {};
INSTANTIATE_TEST_SUITE_P(All, MxCaseTest, ::testing::ValuesIn(testing::OpCases({{1, 32}, {3, 96}, {5, 2080}, {0, 64}})),
                         testing::OpCaseName);

// Codes, scales and mask by the formula in double, from the stored scale; ties in u are as rare as in the data.
TEST_P(MxCaseTest, MatchesTheFormula) {
  const HostTensor v = HostTensor::Normal(GetParam().dtype, GetParam().shape, 21, 0.02);
  const std::vector<double> x = v.ToDoubles();
  for (const MxFormat& format : {kQuest, kQuestRms, kQuestNearest, kQuestCeil, kAbsMax, kAbsMaxPlain}) {
    const Quantized q(v, format);
    const std::vector<double> values = q.values.ToDoubles();
    for (size_t g = 0; g < x.size() / 32; ++g) {
      double largest = 0, sum = 0, squares = 0;
      for (size_t i = 32 * g; i < 32 * g + 32; ++i) {
        largest = std::max(largest, std::abs(x[i]));
        sum += x[i] / 32;
        squares += x[i] * x[i] / 32;
      }
      const double spread = std::sqrt(format.spread == MxSpread::kRootMeanSquare ? squares : squares - sum * sum);
      const double exact = std::log2(2.92247856 / 6 * spread + 1e-8);
      const double exponent = format.scale == MxScale::kAbsMax            ? std::floor(std::log2(largest)) - 2
                              : format.exponent == E8M0Rounding::kFloor   ? std::floor(exact)
                              : format.exponent == E8M0Rounding::kNearest ? std::round(exact)
                                                                          : std::ceil(exact);
      ASSERT_EQ(q.scales.as<uint8_t>()[g], exponent + 127);
      for (size_t i = 32 * g; i < 32 * g + 32; ++i) {
        const double u = x[i] / std::exp2(exponent) * static_cast<double>(format.Range());
        const double y = E2M1Value(E2M1Code(static_cast<float>(u)));
        ASSERT_EQ(values[i], y * std::exp2(exponent));
        ASSERT_EQ(q.mask.as<uint8_t>()[i / 8] >> (i % 8) & 1, std::abs(u) < 6 ? 1 : 0);
      }
    }
  }
}

TEST_P(MxCaseTest, SameBitsForAnyThreadsPackedAndInPlace) {
  const std::vector<int64_t>& shape = GetParam().shape;
  const HostTensor v = HostTensor::Normal(GetParam().dtype, shape, 8);
  if (v.view().size() == 0) return;
  for (const MxFormat& format : {kQuest, kAbsMax, kAbsMaxStochastic}) {
    testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
      const Quantized q(v, format, stream);
      const HostTensor back = HostTensor::Filled(GetParam().dtype, shape, 5);
      Fp4GroupsDequantize({.packed = q.packed, .scales = q.scales, .values = back}, stream);
      EXPECT_EQ(back.Bytes(), q.values.Bytes());
      const HostTensor in_place = v.Copy();
      MxQuantize({.v = in_place, .format = format, .random = {.purpose = kRandomTest}, .values = in_place}, stream);
      EXPECT_EQ(in_place.Bytes(), q.values.Bytes());
      std::vector<uint8_t> all = q.values.Bytes();
      for (const HostTensor* more : {&q.packed, &q.scales, &q.mask}) {
        const std::vector<uint8_t> bytes = more->Bytes();
        all.insert(all.end(), bytes.begin(), bytes.end());
      }
      return all;
    });
  }
}

TEST_P(MxCaseTest, SameBitsAsOnCpu) {
  const HostTensor v = HostTensor::Normal(GetParam().dtype, GetParam().shape, 9, 0.3);
  if (v.view().size() == 0) return;
  for (const MxFormat& format :
       {kQuest, kQuestRms, kQuestNearest, kQuestCeil, kAbsMax, kAbsMaxPlain, kAbsMaxStochastic}) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      const Quantized q(v, format, stream, {.seed = 4, .step = 3, .purpose = kRandomTest, .tensor = 2});
      std::vector<uint8_t> all = q.values.Bytes();
      for (const HostTensor* more : {&q.packed, &q.scales, &q.mask}) {
        const std::vector<uint8_t> bytes = more->Bytes();
        all.insert(all.end(), bytes.begin(), bytes.end());
      }
      return all;
    });
  }
}

}  // namespace
}  // namespace trainyard::kernels
