#include "kernels/quant/quest.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"
#include "kernels/transform/hadamard.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;
using testing::OpCase;

bool Bit(const HostTensor& bits, int64_t row, int64_t col) {
  return (bits.as<uint8_t>()[row * bits.view().dim(1) + col / 8] >> (col % 8) & 1) != 0;
}

// All results of one call.
struct Quantized {
  Quantized(const HostTensor& v, const QuestFormat& format, Stream& stream, int64_t rotate_group = 0)
      : rows(v.view().dim(0)),
        cols(v.view().dim(1)),
        steps(DType::kF32, {rows}),
        values(HostTensor::Filled(v.view().dtype(), {rows, cols}, 99)),
        codes(DType::kU8, {rows, cols}),
        code_sums(DType::kI32, {rows}),
        mask(DType::kU8, {rows, PackedBytes(cols, 1)}),
        kept(DType::kU8, {rows, PackedBytes(cols, 1)}) {
    QuestQuantizeArgs args = {.v = v,
                              .format = format,
                              .rotate_group = rotate_group,
                              .steps = steps,
                              .values = values,
                              .codes = codes,
                              .mask = mask};
    if (format.is_2_4_sparse) args.kept = kept;
    if (!format.is_2_4_sparse && format.grid == QuestGrid::kInt) args.code_sums = code_sums;
    QuestQuantize(args, stream);
  }
  Quantized(const HostTensor& v, const QuestFormat& format) : Quantized(v, format, kOneThread()) {}

  static Stream& kOneThread() {
    static testing::TestStream stream(1);
    return stream;
  }
  int64_t Masked() const {
    int64_t masked = 0;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) masked += Bit(mask, r, c) ? 0 : 1;
    }
    return masked;
  }
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> all;
    for (const HostTensor* tensor : {&steps, &values, &codes, &code_sums, &mask, &kept}) {
      const std::vector<uint8_t> bytes = tensor->Bytes();
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  }

  int64_t rows, cols;
  HostTensor steps, values, codes, code_sums, mask, kept;
};

HostTensor Row(const std::vector<double>& values) {
  return HostTensor::Of(DType::kF32, {1, static_cast<int64_t>(values.size())}, values);
}

// A rotated one-hot row: entries +-1 (quest.md 5.2; the signs are those of a row of the Hadamard matrix).
HostTensor SignRow(int64_t cols) {
  std::vector<double> values;
  for (int64_t c = 0; c < cols; ++c) values.push_back(__builtin_popcountll(static_cast<uint64_t>(c) & 37) % 2 ? -1 : 1);
  return Row(values);
}

std::vector<QuestFormat> AllFormats() {
  std::vector<QuestFormat> formats = {{.grid = QuestGrid::kFp4}, {.is_2_4_sparse = true}};
  for (int bits = 1; bits <= 8; ++bits) formats.push_back({.bits = bits});
  return formats;
}

TEST(QuestTest, OneHotRowsBecomeTheKnownMultiple) {
  const double expected[9] = {0, 0.7978845587, 1.4935346200, 0.8790292946, 0.8379768595, 0, 0, 0, 0.9902784868};
  for (const int bits : {1, 2, 3, 4, 8}) {
    const HostTensor v = SignRow(128);
    const Quantized q(v, {.bits = bits});
    const std::vector<double> x = v.ToDoubles();
    const std::vector<double> y = q.values.ToDoubles();
    for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(y[i] / x[i], expected[bits], 2e-7) << bits;
    EXPECT_EQ(q.Masked(), 0) << bits;  // for one bit: 1 <= 1.3 * 0.798
  }
}

// The outer scale of one bit moves the border of the mask (|v| against s * clip, as the code does): with s = 1 these
// entries are outside.
TEST(QuestTest, OneBitMaskIsAnOuterScale) {
  const HostTensor v = SignRow(128);
  EXPECT_EQ(Quantized(v, {.bits = 1, .one_bit_outer_scale = 1.0f}).Masked(), 128);
  EXPECT_EQ(Quantized(v, {.bits = 1, .one_bit_outer_scale = 1.25f}).Masked(), 128);  // 0.997
  EXPECT_EQ(Quantized(v, {.bits = 1, .one_bit_outer_scale = 1.26f}).Masked(), 0);    // 1.005
}

TEST(QuestTest, ExactlyTwoToTheBitsLevelsAndNoZero) {
  for (int bits = 1; bits <= 8; ++bits) {
    const HostTensor v = HostTensor::Normal(DType::kF32, {1, 1 << 17}, 3);
    for (int i = 0; i < 4096; ++i) v.as<float>()[i] = static_cast<float>(i - 2048) / 340;  // so that all are used
    const Quantized q(v, {.bits = bits});
    const std::vector<double> values = q.values.ToDoubles();
    const std::set<double> levels(values.begin(), values.end());
    ASSERT_EQ(levels.size(), size_t{1} << bits);
    EXPECT_EQ(levels.count(0), 0u);
    double squares = 0;
    for (const double x : v.ToDoubles()) squares += x * x;
    const double rms = std::sqrt(squares / (1 << 17));
    EXPECT_NEAR(*levels.rbegin() / rms, kQuestClip[bits], 1e-6 * kQuestClip[bits]);
    EXPECT_EQ(*levels.begin(), -*levels.rbegin());
    for (int64_t i = 0; i < (1 << 17); ++i) {
      const int code = static_cast<int8_t>(q.codes.as<uint8_t>()[i]);
      ASSERT_GE(code, -(1 << (bits - 1)));
      ASSERT_LT(code, 1 << (bits - 1));
    }
  }
}

// The quantiles of N(0, 1) at (i + 1/2) / n: a sample without its noise, which at 8 bits is above 1 %. Dealt out to the
// rows, so that each of them has a root mean square of 1.
HostTensor NormalQuantiles(int64_t rows, int64_t cols) {
  HostTensor v(DType::kF32, {rows, cols});
  const int64_t n = rows * cols;
  const auto at = [&](int64_t i) -> float& { return v.as<float>()[i % rows * cols + i / rows]; };
  double z = 0;
  for (int64_t i = n / 2; i < n; ++i) {  // upwards, each found from the one before
    const double tail = 1 - (static_cast<double>(i) + 0.5) / static_cast<double>(n);
    for (int step = 0; step < 2; ++step) {
      z += (std::erfc(z / std::sqrt(2.0)) / 2 - tail) / (std::exp(-z * z / 2) / std::sqrt(2 * M_PI));
    }
    at(i) = static_cast<float>(z);
    at(n - 1 - i) = static_cast<float>(-z);
  }
  return v;
}

// quest.md 2.2, table, and 5.4.
TEST(QuestTest, ErrorAndMaskedShareOfNormalValues) {
  const double mse[9] = {0, 0.36338, 0.118846, 0.0374397, 0.0115429, 0.00349521, 0.00104005, 0.000304366, 8.782e-5};
  const HostTensor v = NormalQuantiles(64, 1 << 15);
  const double count = 1 << 21;
  const auto check = [&](const QuestFormat& format, double expected_mse, double border) {
    testing::TestStream stream(2);
    const Quantized q(v, format, stream);
    double error = 0;
    for (int64_t i = 0; i < v.view().size(); ++i) {
      const double e = static_cast<double>(q.values.as<float>()[i]) - static_cast<double>(v.as<float>()[i]);
      error += e * e;
    }
    EXPECT_NEAR(error / count, expected_mse, 0.003 * expected_mse) << format.bits;
    const double share = std::erfc(border / std::sqrt(2.0));  // 2 Q(border)
    EXPECT_NEAR(static_cast<double>(q.Masked()), count * share, 4 + 0.002 * count * share) << format.bits;
  };
  for (int bits = 2; bits <= 8; ++bits)
    check({.bits = bits}, mse[bits], kQuestClip[bits] * (1 + 1.0 / ((1 << bits) - 1)));
  check({.bits = 1}, mse[1], 1.30 * kQuestClip[1]);
  check({.grid = QuestGrid::kFp4}, 0.0126849, kQuestClipFp4 * 7 / 6);
  check({.bits = 4, .mask = QuestMask::kClip}, mse[4], kQuestClip[4]);
  check({.bits = 4, .mask = QuestMask::kStraightThrough}, mse[4], 40);
  check({.bits = 4, .trust_factor = 1}, mse[4], kQuestClip[4] + 1);
}

// quest.md 5.2, with the rotation: a one-hot row becomes c times a row of H.
TEST(QuestTest, OneHotRowsAreRotatedFirst) {
  const double expected[9] = {0, 0.7978845587, 1.4935346200, 0.8790292946, 0.8379768595, 0, 0, 0, 0.9902784868};
  testing::TestStream stream(1);
  for (const int64_t hot : {0, 1, 77, 127}) {
    std::vector<double> one_hot(128, 0);
    one_hot[static_cast<size_t>(hot)] = std::sqrt(128.0);
    for (const int bits : {1, 2, 3, 4, 8}) {
      const Quantized q(Row(one_hot), {.bits = bits}, stream, 128);
      for (int64_t c = 0; c < 128; ++c) {
        const double sign = __builtin_popcountll(static_cast<uint64_t>(c & hot)) % 2 == 0 ? 1 : -1;
        ASSERT_NEAR(q.values.as<float>()[c], sign * expected[bits], 1e-6) << bits << " bits, column " << c;
      }
      EXPECT_EQ(q.Masked(), 0);
    }
  }
}

// With a clip point from the data the rotated rows are quantized as such, bit for bit; with one from the root mean
// square, which comes from the row before it is rotated, to rounding.
TEST(QuestTest, RotatesOnTheWay) {
  testing::TestStream stream(2);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t group : {16, 32, 64, 128, 1024}) {
      const HostTensor x = HostTensor::Normal(dtype, {3, 3072}, 17);
      const HostTensor rotated(DType::kF32, {3, 3072});
      Hadamard({.x = x, .y = rotated, .group = group}, stream);
      const QuestFormat abs_max{.bits = 5, .clip = QuestClip::kAbsMax};
      const Quantized fused(x, abs_max, stream, group);
      const Quantized apart(rotated, abs_max);
      EXPECT_EQ(fused.codes.Bytes(), apart.codes.Bytes());
      EXPECT_EQ(fused.steps.Bytes(), apart.steps.Bytes());
      EXPECT_EQ(fused.mask.Bytes(), apart.mask.Bytes());
      const Quantized fused_mse(x, {}, stream, group);
      const Quantized apart_mse(rotated, {});
      int64_t different = 0;
      for (int64_t i = 0; i < 3 * 3072; ++i) {
        different += fused_mse.codes.as<uint8_t>()[i] != apart_mse.codes.as<uint8_t>()[i] ? 1 : 0;
      }
      EXPECT_LE(different, 3);  // values between two levels to rounding
      for (int r = 0; r < 3; ++r) {
        EXPECT_NEAR(fused_mse.steps.as<float>()[r], apart_mse.steps.as<float>()[r], 1e-6);
      }
    }
  }
}

// The straight-through baseline: the largest entry is the outermost level, and no mask cuts anything.
TEST(QuestTest, AbsMaxReachesTheLargestEntry) {
  const HostTensor v = HostTensor::Normal(DType::kF32, {4, 1000}, 5);
  for (const QuestMask mask : {QuestMask::kTrust, QuestMask::kClip, QuestMask::kStraightThrough}) {
    const Quantized q(v, {.bits = 4, .clip = QuestClip::kAbsMax, .mask = mask});
    EXPECT_EQ(q.Masked(), 0);
    for (int64_t r = 0; r < 4; ++r) {
      double largest = 0;
      double largest_value = 0;
      for (int64_t c = r * 1000; c < (r + 1) * 1000; ++c) {
        largest = std::max(largest, std::abs(static_cast<double>(v.as<float>()[c])));
        largest_value = std::max(largest_value, std::abs(static_cast<double>(q.values.as<float>()[c])));
      }
      EXPECT_NEAR(q.steps.as<float>()[r], 2 * largest / 15, 1e-6);
      EXPECT_NEAR(largest_value, largest, 1e-6);
    }
  }
}

// One entry of 10 rms is masked by trust and by clip; one just beyond the clip point by clip only (quest.md 5.6).
TEST(QuestTest, ThreeMasks) {
  std::vector<double> values(1024, 1);
  for (size_t i = 0; i < values.size(); i += 2) values[i] = -1;
  values[7] = 12;
  values[500] = -2.8;
  const HostTensor v = Row(values);
  double squares = 0;
  for (const double x : values) squares += x * x;
  const double rms = std::sqrt(squares / 1024);
  ASSERT_GT(12 / rms, 10);
  ASSERT_GT(2.8 / rms, kQuestClip[4]);
  ASSERT_LT(2.8 / rms, kQuestClip[4] * 16 / 15);
  const Quantized trust(v, {});
  const Quantized clip(v, {.mask = QuestMask::kClip});
  const Quantized none(v, {.mask = QuestMask::kStraightThrough});
  EXPECT_EQ(trust.Masked(), 1);
  EXPECT_FALSE(Bit(trust.mask, 0, 7));
  EXPECT_EQ(clip.Masked(), 2);
  EXPECT_FALSE(Bit(clip.mask, 0, 7));
  EXPECT_FALSE(Bit(clip.mask, 0, 500));
  EXPECT_EQ(none.Masked(), 0);
  EXPECT_EQ(trust.values.Bytes(), none.values.Bytes());
}

// A row of zeros has the step of the epsilon and lets the gradient through, else it would stay zero; so do the zeros of
// other rows, which lie exactly half a step from their level.
TEST(QuestTest, ZerosAreHarmless) {
  for (const QuestFormat& format : AllFormats()) {
    if (format.is_2_4_sparse) continue;
    const Quantized q(Row(std::vector<double>(16, 0)), format);
    for (const double y : q.values.ToDoubles()) EXPECT_LE(std::abs(y), 1.01e-8);
    EXPECT_GT(q.steps.as<float>()[0], 0);
    EXPECT_EQ(q.Masked(), 0) << format.bits;
  }
  for (int i = 1; i < 400; ++i) {
    std::vector<double> values(16, 0);
    for (size_t c = 0; c < 12; ++c) values[c] = c % 2 == 0 ? 0.01 * i : -0.01 * i;
    const Quantized q(Row(values), {.bits = 1 + i % 8});
    for (int64_t c = 12; c < 16; ++c) ASSERT_TRUE(Bit(q.mask, 0, c)) << i;
  }
}

TEST(QuestTest, NotFiniteRowsShow) {
  for (const double bad : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN(), 1e30}) {
    const HostTensor v = HostTensor::Of(DType::kF32, {2, 8}, {1, 2, 3, bad, 5, 6, 7, 8, 1, 1, 1, 1, 1, 1, 1, 1});
    std::vector<QuestFormat> formats = AllFormats();
    if (bad != 1e30) {
      formats.push_back({.clip = QuestClip::kAbsMax});
      formats.push_back({.grid = QuestGrid::kFp4, .clip = QuestClip::kAbsMax});
    }
    for (const QuestFormat& format : formats) {
      if (format.is_2_4_sparse) continue;
      const Quantized q(v, format);
      const std::vector<double> values = q.values.ToDoubles();
      for (size_t i = 0; i < 8; ++i) EXPECT_FALSE(std::isfinite(values[i]));
      for (size_t i = 8; i < 16; ++i) EXPECT_TRUE(std::isfinite(values[i]));
    }
  }
}

// quest.md 5.8, and that what is dropped keeps its gradient only where |v| is within the trust region of zero.
TEST(QuestTest, TwoOfFourPairsSurvive) {
  const HostTensor v = HostTensor::Normal(DType::kF32, {16, 2048}, 9);
  const Quantized q(v, {.is_2_4_sparse = true});
  const Quantized dense(v, {});
  int64_t dropped_with_gradient = 0;
  for (int64_t r = 0; r < 16; ++r) {
    for (int64_t first = 0; first < 2048; first += 8) {
      const float* x = v.as<float>() + r * 2048 + first;
      double least_kept = 1e9;
      double most_dropped = 0;
      int kept = 0;
      for (int64_t pair = 0; pair < 8; pair += 2) {
        ASSERT_EQ(Bit(q.kept, r, first + pair), Bit(q.kept, r, first + pair + 1));
        const double energy = double{x[pair]} * x[pair] + double{x[pair + 1]} * x[pair + 1];
        kept += Bit(q.kept, r, first + pair) ? 2 : 0;
        (Bit(q.kept, r, first + pair) ? least_kept : most_dropped) =
            Bit(q.kept, r, first + pair) ? std::min(least_kept, energy) : std::max(most_dropped, energy);
      }
      ASSERT_EQ(kept, 4);
      ASSERT_GE(least_kept, most_dropped * (1 - 1e-6));
      for (int64_t c = first; c < first + 8; ++c) {
        const int64_t at = r * 2048 + c;
        if (Bit(q.kept, r, c)) {
          ASSERT_EQ(q.values.as<float>()[at], dense.values.as<float>()[at]);
          ASSERT_EQ(Bit(q.mask, r, c), Bit(dense.mask, r, c));
        } else {
          ASSERT_EQ(q.values.as<float>()[at], 0);
          ASSERT_EQ(q.codes.as<uint8_t>()[at], 0);
          const bool is_small = std::abs(v.as<float>()[at]) <= q.steps.as<float>()[r] / 2;
          ASSERT_EQ(Bit(q.mask, r, c), is_small);
          dropped_with_gradient += is_small ? 1 : 0;
        }
      }
    }
  }
  EXPECT_GT(dropped_with_gradient, 1000);
  // Of equal pairs the first two stay.
  const Quantized equal(SignRow(8), {.is_2_4_sparse = true});
  EXPECT_EQ(equal.kept.Bytes(), (std::vector<uint8_t>{0x0F}));
}

// sum (a + 1/2)(w + 1/2) = sum a w + (sum a + sum w) / 2 + K / 4 (quest.md 2.4).
TEST(QuestTest, ProductOfCodesWithRowSums) {
  constexpr int64_t kCols = 640;
  for (int bits = 1; bits <= 8; ++bits) {
    const HostTensor x = HostTensor::Normal(DType::kF32, {5, kCols}, 1);
    const HostTensor w = HostTensor::Normal(DType::kF32, {5, kCols}, 2, 0.02);
    const Quantized a(x, {.bits = bits});
    const Quantized b(w, {.bits = bits});
    for (int64_t r = 0; r < 5; ++r) {
      int64_t product = 0;
      double expected = 0;
      double magnitude = 0;
      for (int64_t c = r * kCols; c < (r + 1) * kCols; ++c) {
        product += static_cast<int8_t>(a.codes.as<uint8_t>()[c]) * static_cast<int8_t>(b.codes.as<uint8_t>()[c]);
        const double term = static_cast<double>(a.values.as<float>()[c]) * b.values.as<float>()[c];
        expected += term;
        magnitude += std::abs(term);
      }
      const double sums = a.code_sums.as<int32_t>()[r] + b.code_sums.as<int32_t>()[r];
      const double steps = static_cast<double>(a.steps.as<float>()[r]) * b.steps.as<float>()[r];
      EXPECT_NEAR((static_cast<double>(product) + sums / 2 + kCols / 4.0) * steps, expected, 1e-6 * magnitude) << bits;
    }
  }
}

// quest.md 5.9: errors of the operands add up in the product.
TEST(QuestTest, ErrorOfAProductOfNormalOperands) {
  constexpr int64_t kRows = 256;
  constexpr int64_t kCols = 512;
  const HostTensor x = HostTensor::Normal(DType::kF32, {kRows, kCols}, 1);
  const HostTensor w = HostTensor::Normal(DType::kF32, {kRows, kCols}, 2);
  const Quantized a(x, {});
  const Quantized b(w, {});
  double error = 0;
  double square = 0;
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t j = 0; j < kRows; ++j) {
      double exact = 0;
      double quantized = 0;
      for (int64_t k = 0; k < kCols; ++k) {
        exact += static_cast<double>(x.as<float>()[i * kCols + k]) * w.as<float>()[j * kCols + k];
        quantized += static_cast<double>(a.values.as<float>()[i * kCols + k]) * b.values.as<float>()[j * kCols + k];
      }
      error += (quantized - exact) * (quantized - exact);
      square += exact * exact;
    }
  }
  EXPECT_NEAR(error / square, 2 * 0.01154, 0.03 * 2 * 0.01154);
}

class QuestCaseTest : public ::testing::TestWithParam<OpCase> {};
INSTANTIATE_TEST_SUITE_P(All, QuestCaseTest,
                         ::testing::ValuesIn(testing::OpCases({{1, 8}, {3, 72}, {5, 1032}, {37, 264}, {2, 3000}})),
                         testing::OpCaseName);

// The formula in double. A value may land one level off only where it lies between two levels to rounding.
TEST_P(QuestCaseTest, MatchesTheFormula) {
  const int64_t rows = GetParam().dim(0);
  const int64_t cols = GetParam().dim(1);
  const HostTensor v = HostTensor::Normal(GetParam().dtype, {rows, cols}, 21, 3);
  const std::vector<double> x = v.ToDoubles();
  for (int bits = 1; bits <= 8; ++bits) {
    const Quantized q(v, {.bits = bits});
    const std::vector<double> values = q.values.ToDoubles();
    for (int64_t r = 0; r < rows; ++r) {
      double squares = 0;
      for (int64_t c = 0; c < cols; ++c)
        squares += x[static_cast<size_t>(r * cols + c)] * x[static_cast<size_t>(r * cols + c)];
      const double clip = kQuestClip[bits] * std::sqrt(squares / static_cast<double>(cols)) + 1e-8;
      const double step = 2 * clip / ((1 << bits) - 1);
      ASSERT_NEAR(q.steps.as<float>()[r], step, 1e-6 * step);
      for (int64_t c = 0; c < cols; ++c) {
        const size_t at = static_cast<size_t>(r * cols + c);
        const double position = std::clamp(x[at], -clip, clip) / step + 0.5;
        const int code = static_cast<int8_t>(q.codes.as<uint8_t>()[at]);
        ASSERT_NEAR(code + 1, position, 0.5 + 1e-4) << x[at];
        const double rounding = GetParam().dtype == DType::kBF16 ? 1.0 / 256 : 2e-6;
        ASSERT_NEAR(values[at], (code + 0.5) * step, rounding * std::abs((code + 0.5) * step));
      }
    }
  }
}

TEST_P(QuestCaseTest, SameBitsForAnyThreadsAndInPlace) {
  const std::vector<int64_t>& shape = GetParam().shape;
  const HostTensor v = HostTensor::Normal(GetParam().dtype, shape, 8);
  for (const QuestFormat& format : AllFormats()) {
    testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) { return Quantized(v, format, stream).Bytes(); });
    testing::TestStream stream(1);
    const Quantized q(v, format);
    const HostTensor in_place = v.Copy();
    const HostTensor steps(DType::kF32, {shape[0]});
    QuestQuantize({.v = in_place, .format = format, .steps = steps, .values = in_place}, stream);
    EXPECT_EQ(in_place.Bytes(), q.values.Bytes());
    const HostTensor back = HostTensor::Filled(GetParam().dtype, shape, 5);
    QuestDequantizeArgs args = {.codes = q.codes, .steps = q.steps, .values = back, .grid = format.grid};
    if (format.is_2_4_sparse) args.kept = q.kept;
    QuestDequantize(args, stream);
    EXPECT_EQ(back.Bytes(), q.values.Bytes());
  }
}

TEST_P(QuestCaseTest, SameBitsAsOnCpu) {
  const HostTensor v = HostTensor::Normal(GetParam().dtype, GetParam().shape, 31, 2);
  std::vector<QuestFormat> formats = AllFormats();
  formats.push_back({.bits = 3, .clip = QuestClip::kAbsMax, .mask = QuestMask::kClip});
  formats.push_back({.grid = QuestGrid::kFp4, .is_2_4_sparse = true, .clip = QuestClip::kAbsMax});
  formats.push_back({.bits = 5, .mask = QuestMask::kStraightThrough});
  formats.push_back({.bits = 4, .trust_factor = 0.5f});
  for (const QuestFormat& format : formats) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      const Quantized q(v, format, stream);
      const HostTensor back = HostTensor::Filled(GetParam().dtype, GetParam().shape, 5);
      QuestDequantizeArgs args = {.codes = q.codes, .steps = q.steps, .values = back, .grid = format.grid};
      if (format.is_2_4_sparse) args.kept = q.kept;
      QuestDequantize(args, stream);
      std::vector<uint8_t> all = q.Bytes();
      const std::vector<uint8_t> more = back.Bytes();
      all.insert(all.end(), more.begin(), more.end());
      return all;
    });
  }
}

// Every size of group takes other registers, lanes and parts of a tile.
TEST(QuestTest, RotatedRowsHaveTheSameBitsAsOnCpu) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t group : {16, 32, 64, 128, 256, 512, 1024}) {
      const HostTensor v = HostTensor::Normal(dtype, {3, group == 1024 ? 3072 : 1536}, 12);
      for (const QuestFormat& format : {QuestFormat{},
                                        {.grid = QuestGrid::kFp4},
                                        {.bits = 2, .is_2_4_sparse = true},
                                        {.bits = 6, .clip = QuestClip::kAbsMax}}) {
        testing::ExpectSameBitsAsOnCpu([&](Stream& stream) { return Quantized(v, format, stream, group).Bytes(); });
      }
      testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
        const HostTensor in_place = v.Copy();
        const HostTensor steps = HostTensor::Of(DType::kF32, {3}, {0.3, 0.01, 2});
        QuestQuantize({.v = in_place,
                       .format = {.bits = 3, .clip = QuestClip::kGiven},
                       .rotate_group = group,
                       .steps = steps,
                       .values = in_place},
                      stream);
        return in_place.Bytes();
      });
    }
  }
}

}  // namespace
}  // namespace trainyard::kernels
