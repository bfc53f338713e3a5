#include "kernels/quant/fp8_quantize.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/quant/abs_max.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;
using testing::OpCase;

struct Setting {
  bool by_row = false;
  DType format = DType::kF8E4M3;
  float target = kFp8Target;
  Rounding rounding = Rounding::kNearestEven;
};

struct Quantized {
  Quantized(const HostTensor& x, const Setting& setting, Stream& stream)
      : rows(x.view().dim(0)),
        cols(x.view().dim(1)),
        amax(DType::kF32, {setting.by_row ? rows : 1}),
        inverse(DType::kF32, {setting.by_row ? rows : 1}),
        codes(setting.format, {rows, cols}),
        values(HostTensor::Filled(x.view().dtype(), {rows, cols}, 99)),
        back(HostTensor::Filled(DType::kF32, {rows, cols}, 99)) {
    AbsMax({.x = x, .y = amax}, stream);
    Fp8Quantize({.x = x,
                 .amax = amax,
                 .target = setting.target,
                 .rounding = setting.rounding,
                 .random = {.seed = 3, .purpose = kRandomTest},
                 .codes = codes,
                 .inverse = inverse,
                 .values = values},
                stream);
    Fp8Dequantize({.codes = codes, .inverse = inverse, .y = back}, stream);
  }
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> all;
    for (const HostTensor* tensor : {&inverse, &codes, &values, &back}) {
      const std::vector<uint8_t> bytes = tensor->Bytes();
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  }

  int64_t rows, cols;
  HostTensor amax, inverse, codes, values, back;
};

std::vector<Setting> AllSettings() {
  std::vector<Setting> settings;
  for (const bool by_row : {false, true}) {
    for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
      settings.push_back({by_row, DType::kF8E4M3, kFp8Target, rounding});
      settings.push_back({by_row, DType::kF8E5M2, kFp8Target, rounding});
      settings.push_back({by_row, DType::kF8E5M2, kE5M2Target, rounding});
    }
  }
  return settings;
}

class Fp8QuantizeTest : public ::testing::TestWithParam<OpCase> {};
INSTANTIATE_TEST_SUITE_P(
    All, Fp8QuantizeTest,
    ::testing::ValuesIn(testing::OpCases({{1, 1}, {3, 7}, {5, 1025}, {64, 96}, {130, 67}, {2, 0}})),
    testing::OpCaseName);

// The largest magnitude lands on the target and comes back; everything else is within half a step of its code.
TEST_P(Fp8QuantizeTest, MatchesTheFormula) {
  testing::TestStream stream(1);
  const int64_t rows = GetParam().dim(0);
  const int64_t cols = GetParam().dim(1);
  const HostTensor x = HostTensor::Normal(GetParam().dtype, {rows, cols}, 2, 0.02);
  const std::vector<double> v = x.ToDoubles();
  for (const Setting& setting : AllSettings()) {
    if (setting.rounding == Rounding::kStochastic) continue;
    const Quantized q(x, setting, stream);
    const std::vector<double> values = q.values.ToDoubles();
    for (size_t i = 0; i < v.size(); ++i) {
      const size_t scale = setting.by_row ? i / static_cast<size_t>(cols) : 0;
      const float amax = q.amax.as<float>()[scale];
      const float inverse = q.inverse.as<float>()[scale];
      ASSERT_EQ(inverse, amax / setting.target);
      const float scaled = static_cast<float>(v[i]) * (setting.target / amax);
      const float rounded = setting.format == DType::kF8E4M3
                                ? WidenToFloat(RoundNearest<Float8E4M3>(scaled, Overflow::kSaturate))
                                : WidenToFloat(RoundNearest<Float8E5M2>(scaled, Overflow::kSaturate));
      ASSERT_EQ(values[i], rounded);
      ASSERT_EQ(q.back.as<float>()[i], rounded * inverse);
      if (std::abs(v[i]) == static_cast<double>(amax)) {
        ASSERT_EQ(std::abs(rounded), setting.target);
        ASSERT_NEAR(q.back.as<float>()[i], v[i], 2e-7 * std::abs(v[i]));
      }
    }
  }
}

TEST_P(Fp8QuantizeTest, SameBitsForAnyThreadsAndInPlace) {
  const HostTensor x = HostTensor::Normal(GetParam().dtype, GetParam().shape, 8);
  if (x.view().size() == 0) return;
  for (const Setting& setting : AllSettings()) {
    testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
      const Quantized q(x, setting, stream);
      const HostTensor in_place = x.Copy();
      const HostTensor scales = q.amax.Copy();  // amax becomes inverse
      const HostTensor codes(setting.format, GetParam().shape);
      Fp8Quantize({.x = in_place,
                   .amax = scales,
                   .target = setting.target,
                   .rounding = setting.rounding,
                   .random = {.seed = 3, .purpose = kRandomTest},
                   .codes = codes,
                   .inverse = scales,
                   .values = in_place},
                  stream);
      EXPECT_EQ(in_place.Bytes(), q.values.Bytes());
      EXPECT_EQ(scales.Bytes(), q.inverse.Bytes());
      return q.Bytes();
    });
  }
}

TEST_P(Fp8QuantizeTest, SameBitsAsOnCpu) {
  const HostTensor x = HostTensor::Normal(GetParam().dtype, GetParam().shape, 9, 0.1);
  for (const Setting& setting : AllSettings()) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      std::vector<uint8_t> bytes = Quantized(x, setting, stream).Bytes();
      bytes.push_back(1);  // so that empty shapes compare something
      return bytes;
    });
  }
}

// Both ways at once, only turned, and with amax becoming inverse: always the codes of the plain call.
TEST_P(Fp8QuantizeTest, TransposedHasTheSameCodes) {
  const int64_t rows = GetParam().dim(0);
  const int64_t cols = GetParam().dim(1);
  const HostTensor x = HostTensor::Normal(GetParam().dtype, {rows, cols}, 8);
  for (const Setting& setting : AllSettings()) {
    testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
      const Quantized q(x, setting, stream);
      const std::vector<uint8_t> codes = q.codes.Bytes();
      std::vector<uint8_t> expected(codes.size());
      for (size_t i = 0; i < codes.size(); ++i) {
        const auto r = static_cast<int64_t>(i) / cols, c = static_cast<int64_t>(i) % cols;
        expected[static_cast<size_t>(c * rows + r)] = codes[i];
      }
      for (const bool only_turned : {false, true}) {
        const HostTensor both(setting.format, {rows, cols}), turned(setting.format, {cols, rows});
        const HostTensor scales = q.amax.Copy(), inverse(DType::kF32, {q.amax.view().size()});
        const HostTensor values = HostTensor::Filled(x.view().dtype(), {rows, cols}, 99);
        Fp8Quantize({.x = x,
                     .amax = scales,
                     .target = setting.target,
                     .rounding = setting.rounding,
                     .random = {.seed = 3, .purpose = kRandomTest},
                     .codes = only_turned ? TensorView() : both.view(),
                     .inverse = only_turned ? scales.view() : inverse.view(),
                     .values = only_turned ? TensorView() : values.view(),
                     .transposed = turned},
                    stream);
        EXPECT_EQ(turned.Bytes(), expected);
        EXPECT_EQ((only_turned ? scales : inverse).Bytes(), q.inverse.Bytes());
        if (only_turned) continue;
        EXPECT_EQ(both.Bytes(), codes);
        EXPECT_EQ(values.Bytes(), q.values.Bytes());
      }
      return q.Bytes();
    });
  }
}

TEST_P(Fp8QuantizeTest, RowSumsOfCodes) {
  testing::TestStream stream(2);
  const int64_t rows = GetParam().dim(0);
  const int64_t cols = GetParam().dim(1);
  const HostTensor x = HostTensor::Normal(GetParam().dtype, {rows, cols}, 8);
  for (const DType format : {DType::kF8E4M3, DType::kF8E5M2}) {
    const Quantized q(x, {.format = format}, stream);
    std::vector<double> expected(static_cast<size_t>(rows), 0);
    const std::vector<double> values = q.values.ToDoubles();
    const double inverse = q.inverse.ToDoubles()[0];
    for (size_t i = 0; i < values.size(); ++i) expected[i / static_cast<size_t>(cols)] += inverse * values[i];
    const HostTensor y = HostTensor::Filled(DType::kF32, {rows}, 99);
    const testing::Tolerance tolerance = testing::ToleranceForSum(DType::kF32, cols);
    Fp8RowSums({.codes = q.codes, .inverse = q.inverse, .y = y}, stream);
    EXPECT_THAT(y.ToDoubles(), testing::AllNear(expected, tolerance));
    for (double& sum : expected) sum *= 2;
    Fp8RowSums({.codes = q.codes, .inverse = q.inverse, .y = y, .accumulate = true}, stream);
    EXPECT_THAT(y.ToDoubles(), testing::AllNear(expected, tolerance));
  }
}

double RelativeSquaredError(const HostTensor& x, const Setting& setting) {
  testing::TestStream stream(2);
  const Quantized q(x, setting, stream);
  double error = 0;
  double square = 0;
  for (int64_t i = 0; i < x.view().size(); ++i) {
    const double e = static_cast<double>(q.back.as<float>()[i]) - static_cast<double>(x.as<float>()[i]);
    error += e * e;
    square += static_cast<double>(x.as<float>()[i]) * x.as<float>()[i];
  }
  return error / square;
}

// eco.md 5: Gaussian rows, 7.0e-4 to nearest and 1.40e-3 stochastically; the same with one scale for all.
TEST(Fp8QuantizeTest, GaussianErrorOfE4M3) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {512, 1024}, 4, 0.02);
  for (const bool by_row : {false, true}) {
    const double nearest = RelativeSquaredError(x, {.by_row = by_row});
    const double stochastic = RelativeSquaredError(x, {.by_row = by_row, .rounding = Rounding::kStochastic});
    EXPECT_NEAR(nearest, 7.0e-4, 0.02 * 7.0e-4);
    EXPECT_NEAR(stochastic, 1.40e-3, 0.02 * 1.40e-3);
  }
}

// One large row costs the others their small values with a scale for the tensor (they fall among E4M3's subnormals),
// and nothing with a scale for each row.
TEST(Fp8QuantizeTest, RowsKeepTheirOwnRange) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {2, 4096}, 4);
  for (int64_t i = 0; i < 4096; ++i) x.as<float>()[i] *= 1e5f;
  testing::TestStream stream(1);
  const Quantized of_tensor(x, {}, stream);
  const Quantized of_rows(x, {.by_row = true}, stream);
  int64_t zeros = 0;
  double error = 0;
  for (int64_t i = 4096; i < 8192; ++i) {
    zeros += of_tensor.back.as<float>()[i] == 0 ? 1 : 0;
    error += std::pow(static_cast<double>(of_rows.back.as<float>()[i]) - static_cast<double>(x.as<float>()[i]), 2);
  }
  EXPECT_GT(zeros, 1500);
  EXPECT_LT(error / 4096, 8e-4);
}

TEST(Fp8QuantizeTest, ZerosAndNan) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {3, 2}, {0, 0, 1, std::nan(""), 1e-12, 0});
  const Quantized q(x, {.by_row = true}, stream);
  EXPECT_EQ(q.back.as<float>()[0], 0);
  EXPECT_EQ(q.inverse.as<float>()[0], kFp8SmallestAmax / kFp8Target);
  EXPECT_TRUE(std::isnan(q.back.as<float>()[2]));
  EXPECT_TRUE(std::isnan(q.back.as<float>()[3]));
  EXPECT_NEAR(q.back.as<float>()[4], 1e-12, 0.07e-12);
  EXPECT_EQ(q.back.as<float>()[5], 0);
  const double infinity = std::numeric_limits<double>::infinity();
  const Quantized infinite(HostTensor::Of(DType::kF32, {1, 2}, {1, -infinity}), {}, stream);
  for (const double y : infinite.back.ToDoubles()) EXPECT_TRUE(std::isnan(y));
}

}  // namespace
}  // namespace trainyard::kernels
