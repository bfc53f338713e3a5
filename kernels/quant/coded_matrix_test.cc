#include "kernels/quant/coded_matrix.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/quant/number_format.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

struct Format {
  std::string name;
  DType codes, scales;
  int64_t span;  // of a matrix with kRows rows of kCols
};
constexpr int64_t kRows = 7, kCols = 1280;  // a row is 2.5 blocks; the tensor is more than one task

std::vector<Format> Formats() {
  std::vector<Format> formats;
  for (const auto& [name, span] : {std::pair<std::string, int64_t>{"Tensor", kRows * kCols},
                                   {"Row", kCols},
                                   {"Group128", 128},
                                   {"Group32", 32},
                                   {"Group10", 10}}) {
    formats.push_back({"E4M3" + name, DType::kF8E4M3, DType::kF32, span});
    formats.push_back({"INT4" + name, DType::kU8, DType::kF16, span});
  }
  return formats;
}

struct Coded {
  Coded(const Format& format, const HostTensor& x, Rounding rounding, Stream& stream, uint32_t step = 0)
      : count(x.view().size()),
        format(format),
        codes(format.codes, {format.codes == DType::kU8 ? count / 2 : count}),
        scales(format.scales, {count / format.span}),
        values(HostTensor::Filled(DType::kF32, {count}, 99)) {
    EncodeMatrix({.x = x, .matrix = matrix(), .rounding = rounding, .random = {.seed = 3, .step = step, .tensor = 2}},
                 stream);
    DecodeMatrix({.matrix = matrix(), .y = values}, stream);
  }
  CodedMatrix matrix() const { return {codes, scales}; }
  double scale(int64_t element) const {
    const int64_t i = element / format.span;
    return format.scales == DType::kF32 ? scales.as<float>()[i] : WidenToFloat(scales.as<Float16>()[i]);
  }
  // Distance of the grid's neighbours around |x| = scale * magnitude.
  double Spacing(int64_t element, double magnitude) const {
    if (format.codes == DType::kU8) return scale(element);
    return scale(element) * std::exp2(std::max(std::floor(std::log2(magnitude)), -6.0) - 3);
  }
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> bytes = codes.Bytes();
    for (const HostTensor* more : {&scales, &values}) {
      const std::vector<uint8_t> next = more->Bytes();
      bytes.insert(bytes.end(), next.begin(), next.end());
    }
    return bytes;
  }

  int64_t count;
  Format format;
  HostTensor codes, scales, values;
};

class CodedMatrixTest : public ::testing::TestWithParam<Format> {};
INSTANTIATE_TEST_SUITE_P(All, CodedMatrixTest, ::testing::ValuesIn(Formats()),
                         [](const auto& info) { return info.param.name; });

// Within half a step of the value to nearest, within one stochastically; the largest of a span is the largest code,
// exactly but for the rounding of its scale; nothing clips.
TEST_P(CodedMatrixTest, ValuesAreNeighboursOnTheGrid) {
  testing::TestStream stream(2);
  const HostTensor x = HostTensor::Normal(DType::kF32, {kRows, kCols}, 2, 0.02);
  const double largest = GetParam().codes == DType::kU8 ? 7 : 448;
  for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
    const Coded coded(GetParam(), x, rounding, stream);
    for (int64_t begin = 0; begin < coded.count; begin += coded.format.span) {
      double amax = 0;
      for (int64_t i = begin; i < begin + coded.format.span; ++i)
        amax = std::max(amax, std::abs(double{x.as<float>()[i]}));
      const double scale = coded.scale(begin);
      ASSERT_GE(scale * largest, amax * (1 - 1e-7));
      ASSERT_LE(scale * largest, amax * (1 + (GetParam().scales == DType::kF16 ? 1.1e-3 : 1e-7)) + 6e-8 * largest);
      for (int64_t i = begin; i < begin + coded.format.span; ++i) {
        const double value = x.as<float>()[i];
        const double spacing = coded.Spacing(i, std::abs(value) / scale);
        const double bound = rounding == Rounding::kNearestEven ? spacing / 2 : spacing;
        ASSERT_LE(std::abs(coded.values.as<float>()[i] - value), bound * (1 + 1e-5) + 1e-12) << i;
      }
    }
  }
}

TEST_P(CodedMatrixTest, SameBitsForAnyThreads) {
  const HostTensor x = HostTensor::Normal(DType::kBF16, {40, kCols}, 8);
  for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
    testing::ExpectSameBitsForAnyThreadCount(
        [&](Stream& stream) { return Coded(GetParam(), x, rounding, stream).Bytes(); });
  }
}

TEST_P(CodedMatrixTest, SameBitsAsOnCpu) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const HostTensor x = HostTensor::Normal(dtype, {kRows, kCols}, 12, 0.02);
    for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
      testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
        const Coded coded(GetParam(), x, rounding, stream, 7);
        const HostTensor narrow = HostTensor::Filled(DType::kBF16, {coded.count}, 99);
        DecodeMatrix({.matrix = coded.matrix(), .y = narrow}, stream);
        std::vector<uint8_t> all = coded.Bytes();
        const std::vector<uint8_t> more = narrow.Bytes();
        all.insert(all.end(), more.begin(), more.end());
        return all;
      });
    }
  }
}

// methods/eco.md, section 5: |mean error| < 4 spacing / sqrt(6 n), with the mean over elements and 20 steps.
TEST_P(CodedMatrixTest, StochasticRoundingHasTheRightMeanAndTwiceTheVariance) {
  if (testing::DeviceUnderTest() == Device::kCuda) {
    GTEST_SKIP() << "many draws, slow on an emulated device; SameBitsAsOnCpu says that they are the CPU's";
  }
  testing::TestStream stream(2);
  const HostTensor x = HostTensor::Normal(DType::kF32, {kRows, kCols}, 4, 0.02);
  const Coded nearest(GetParam(), x, Rounding::kNearestEven, stream);
  double error = 0, squares = 0, nearest_squares = 0;
  constexpr uint32_t kSteps = 20;
  for (uint32_t step = 0; step < kSteps; ++step) {
    const Coded coded(GetParam(), x, Rounding::kStochastic, stream, step);
    for (int64_t i = 0; i < coded.count; ++i) {
      const double value = x.as<float>()[i];
      const double spacing = coded.Spacing(i, std::abs(value) / coded.scale(i));
      const double distance = (coded.values.as<float>()[i] - value) / spacing;
      const double nearest_distance = (nearest.values.as<float>()[i] - value) / spacing;
      error += distance;
      squares += distance * distance;
      nearest_squares += nearest_distance * nearest_distance;
    }
  }
  const double n = static_cast<double>(kSteps) * kRows * kCols;
  EXPECT_LT(std::abs(error / n), 4 / std::sqrt(6 * n));
  // Spacing^2 / 6 and / 12 where x / spacing is uniform.
  EXPECT_NEAR(squares / nearest_squares, 2, 0.06);
  EXPECT_NEAR(squares / n, 1.0 / 6, 0.02);
}

TEST_P(CodedMatrixTest, ZeroAndTinySpansAndWhatIsNotFinite) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Normal(DType::kF32, {kRows, kCols}, 6);
  const int64_t span = GetParam().span;
  const int64_t spans = kRows * kCols / span;
  const float bad[] = {0.0f, 1e-41f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()};
  for (size_t kind = 0; kind < 4; ++kind) {
    const int64_t where = spans / 2 * span;
    for (int64_t i = where; i < where + span; ++i) {
      if (kind < 2 || i == where + span / 3) x.as<float>()[i] = bad[kind];
    }
    const Coded coded(GetParam(), x, Rounding::kStochastic, stream);
    for (int64_t i = 0; i < coded.count; ++i) {
      const float value = coded.values.as<float>()[i];
      if (i < where || i >= where + span) {
        ASSERT_TRUE(std::isfinite(value));
      } else if (kind < 2) {
        ASSERT_NEAR(value, 0.0f, 1e-6f) << kind;
      } else {
        ASSERT_TRUE(std::isnan(value) || kind == 3) << i << " " << kind;
      }
    }
    EXPECT_EQ(std::isfinite(coded.values.as<float>()[where]), kind < 2);
  }
}

// Half a scale apart, with all thresholds of ten bits: the mean is the value exactly.
TEST(CodedMatrixInt4, MeanOverAllThresholdsIsExact) {
  testing::TestStream stream(1);
  // 1024 copies of j / 1024 between 0 and 1, each against its own threshold: draws are Philox words, so the test asks
  // for the words that the op will use and counts.
  constexpr int64_t kCount = 1 << 16;
  for (const double target : {0.25, 1.5, -2.75, 6.9375}) {
    HostTensor x = HostTensor::Filled(DType::kF32, {kCount}, target);
    x.as<float>()[0] = 7;  // the scale is 1
    const HostTensor codes(DType::kU8, {kCount / 2}), scales(DType::kF16, {1}), y(DType::kF32, {kCount});
    const PhiloxKey key{.seed = 5, .step = 1, .tensor = 4};
    EncodeMatrix({.x = x, .matrix = {codes, scales}, .rounding = Rounding::kStochastic, .random = key}, stream);
    DecodeMatrix({.matrix = {codes, scales}, .y = y}, stream);
    for (int64_t i = 1; i < kCount; ++i) {
      const double draw = (static_cast<double>(RandomWord(key, static_cast<uint64_t>(i)) >> 9) + 0.5) * 0x1p-23;
      const double below = std::floor(target);
      ASSERT_EQ(y.as<float>()[i], static_cast<float>(draw < target - below ? below + 1 : below)) << i;
    }
  }
}

TEST(CodedMatrixE4M3, OddSpansHaveTheSameBitsAsOnCpu) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {7, 1280}, 12, 0.02);
  for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      return Coded({"", DType::kF8E4M3, DType::kF32, 5}, x, rounding, stream, 7).Bytes();
    });
  }
}

// methods/eco.md, section 5: relative error of E4M3 on Gaussian rows.
TEST(CodedMatrixE4M3, RelativeErrorOnGaussianRows) {
  testing::TestStream stream(2);
  const HostTensor x = HostTensor::Normal(DType::kF32, {64, 1024}, 9);
  for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
    const Coded coded({"", DType::kF8E4M3, DType::kF32, 1024}, x, rounding, stream);
    double squares = 0, errors = 0;
    for (int64_t i = 0; i < coded.count; ++i) {
      squares += std::pow(x.as<float>()[i], 2);
      errors += std::pow(x.as<float>()[i] - coded.values.as<float>()[i], 2);
    }
    const double expected = rounding == Rounding::kNearestEven ? 7.0e-4 : 1.40e-3;
    EXPECT_NEAR(errors / squares, expected, 0.05 * expected);
  }
}

TEST(CodedMatrixInt4, AnElementsCodeIsInItsHalfOfTheByte) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {4}, {7, -3, -7, 2});
  const HostTensor codes(DType::kU8, {2}), scales(DType::kF16, {1}), y(DType::kBF16, {4});
  EncodeMatrix({.x = x, .matrix = {codes, scales}}, stream);
  EXPECT_EQ(codes.Bytes(), (std::vector<uint8_t>{0xD7, 0x29}));
  DecodeMatrix({.matrix = {codes, scales}, .y = y}, stream);
  EXPECT_EQ(y.ToDoubles(), (std::vector<double>{7, -3, -7, 2}));
}

TEST(CodedMatrixF32, IsNoCodeAtAll) {
  testing::TestStream stream(2);
  const HostTensor x = HostTensor::Normal(DType::kF32, {3, 700}, 1);
  const HostTensor codes(DType::kF32, {3, 700}), y(DType::kF32, {3, 700});
  EncodeMatrix({.x = x, .matrix = {codes, {}}}, stream);
  DecodeMatrix({.matrix = {codes, {}}, .y = y}, stream);
  EXPECT_EQ(y.Bytes(), x.Bytes());
}

}  // namespace
}  // namespace trainyard::kernels
