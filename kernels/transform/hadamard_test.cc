#include "kernels/transform/hadamard.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::OpCase;
using Values = std::vector<double>;

// The definition, in double: H (s o x), or s o (H x).
Values Reference(const Values& x, size_t cols, size_t group, const Values& signs, bool inverse) {
  Values y(x.size());
  const auto sign = [&](size_t at) { return signs.empty() ? 1.0 : signs[at % cols % signs.size()]; };
  for (size_t first = 0; first < x.size(); first += group) {
    for (size_t i = 0; i < group; ++i) {
      double sum = 0;
      for (size_t j = 0; j < group; ++j) {
        const double term = x[first + j] * (inverse ? 1.0 : sign(first + j));
        sum += std::popcount(i & j) % 2 == 0 ? term : -term;
      }
      y[first + i] = sum / std::sqrt(static_cast<double>(group)) * (inverse ? sign(first + i) : 1.0);
    }
  }
  return y;
}

HostTensor Signs(int64_t count, uint64_t seed) {
  testing::TestStream stream(1);
  HostTensor signs(DType::kF32, {count});
  RandomSigns({.signs = signs, .random = {.seed = seed, .purpose = kRandomTest}}, stream);
  return signs;
}

// Extents: rows, cols, group.
class HadamardTest : public ::testing::TestWithParam<OpCase> {
 protected:
  const DType dtype_ = GetParam().dtype;
  const int64_t rows_ = GetParam().dim(0);
  const int64_t cols_ = GetParam().dim(1);
  const int64_t group_ = GetParam().dim(2);
  const HostTensor x_ = HostTensor::Normal(dtype_, {rows_, cols_}, 1);
  testing::TestStream stream_{2};
};

// Signs on the wrong side of the transform, or that run on across rows, fail here.
TEST_P(HadamardTest, MatchesTheDefinition) {
  for (const int64_t period : {int64_t{0}, group_, cols_}) {
    const HostTensor signs = Signs(period, 3);
    for (const bool inverse : {false, true}) {
      const Values expected = Reference(x_.ToDoubles(), static_cast<size_t>(cols_), static_cast<size_t>(group_),
                                        signs.ToDoubles(), inverse);
      for (const DType y_dtype : {DType::kF32, DType::kBF16}) {
        const HostTensor y = HostTensor::Filled(y_dtype, {rows_, cols_}, 99);
        Hadamard(
            {.x = x_, .y = y, .group = group_, .signs = period == 0 ? TensorView() : signs.view(), .inverse = inverse},
            stream_);
        EXPECT_THAT(y.ToDoubles(), AllNear(expected, testing::ToleranceForSum(y_dtype, group_)))
            << "period " << period << " inverse " << inverse;
      }
    }
  }
}

// quest.md 2.4: (M o g) rotated back. What the mask drops may even be NaN.
TEST_P(HadamardTest, MaskedInputCountsAsZero) {
  const HostTensor signs = Signs(group_, 3);
  const HostTensor mask(DType::kU8, {rows_, cols_ / 8});
  const HostTensor poisoned = x_.Copy();
  Values kept = x_.ToDoubles();
  for (int64_t i = 0; i < rows_ * cols_; ++i) {
    if ((RandomWord({.seed = 4, .purpose = kRandomTest}, static_cast<uint64_t>(i)) & 3) != 0) {
      mask.as<uint8_t>()[i / 8] |= static_cast<uint8_t>(1 << (i % 8));
      continue;
    }
    kept[static_cast<size_t>(i)] = 0;
    if (dtype_ == DType::kF32) {
      poisoned.as<float>()[i] = std::nanf("");
    } else {
      poisoned.as<BFloat16>()[i] = FromFloat<BFloat16>(std::nanf(""));
    }
  }
  for (const bool inverse : {false, true}) {
    for (const bool with_signs : {false, true}) {
      const HostTensor y = HostTensor::Filled(DType::kF32, {rows_, cols_}, 99);
      Hadamard({.x = poisoned,
                .y = y,
                .group = group_,
                .signs = with_signs ? signs.view() : TensorView(),
                .mask = mask,
                .inverse = inverse},
               stream_);
      EXPECT_THAT(y.ToDoubles(), AllNear(Reference(kept, static_cast<size_t>(cols_), static_cast<size_t>(group_),
                                                   with_signs ? signs.ToDoubles() : Values(), inverse),
                                         testing::ToleranceForSum(DType::kF32, group_)));
    }
  }
}

TEST_P(HadamardTest, InPlaceGivesTheSameBits) {
  const HostTensor signs = Signs(group_, 5);
  const HostTensor y(dtype_, {rows_, cols_});
  const HostTensor in_place = x_.Copy();
  Hadamard({.x = x_, .y = y, .group = group_, .signs = signs}, stream_);
  Hadamard({.x = in_place, .y = in_place, .group = group_, .signs = signs}, stream_);
  EXPECT_EQ(in_place.Bytes(), y.Bytes());
}

// Rounded once, ties to even, as every conversion to bf16: the bits of the f32 result rounded.
TEST_P(HadamardTest, Bf16ResultIsTheF32ResultRounded) {
  const HostTensor f32(DType::kF32, {rows_, cols_});
  const HostTensor bf16(DType::kBF16, {rows_, cols_});
  Hadamard({.x = x_, .y = f32, .group = group_}, stream_);
  Hadamard({.x = x_, .y = bf16, .group = group_}, stream_);
  for (int64_t i = 0; i < rows_ * cols_; ++i) {
    ASSERT_EQ(bf16.as<BFloat16>()[i].bits, FromFloat<BFloat16>(f32.as<float>()[i]).bits) << i;
  }
}

// quest.md section 5: fwht(fwht(x)) = x to 1e-6 (for groups of 128), here with signs; bf16 input, f32 rotation. The
// few roundings of bf16 input add up in few elements, so the bound grows with the length.
TEST_P(HadamardTest, InverseUndoesForward) {
  const HostTensor signs = Signs(cols_, 7);
  const HostTensor rotated(DType::kF32, {rows_, cols_});
  Hadamard({.x = x_, .y = rotated, .group = group_, .signs = signs}, stream_);
  Hadamard({.x = rotated, .y = rotated, .group = group_, .signs = signs, .inverse = true}, stream_);
  const double bound = 1e-6 * std::max(1.0, std::sqrt(static_cast<double>(group_) / 128));
  EXPECT_THAT(rotated.ToDoubles(), AllNear(x_.ToDoubles(), {.absolute = bound, .relative = 1e-6}));
}

TEST_P(HadamardTest, SameBitsForAnyThreadCount) {
  const HostTensor signs = Signs(cols_, 9);
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor y(dtype_, {rows_, cols_});
    Hadamard({.x = x_, .y = y, .group = group_, .signs = signs}, stream);
    return y.Bytes();
  });
}

// The butterflies have one order everywhere; with a mask and signs, both ways, to either dtype.
TEST_P(HadamardTest, SameBitsAsOnTheCpu) {
  const HostTensor mask(DType::kU8, {rows_, cols_ / 8});
  for (int64_t i = 0; i < rows_ * cols_ / 8; ++i) {
    mask.as<uint8_t>()[i] =
        static_cast<uint8_t>(RandomWord({.seed = 6, .purpose = kRandomTest}, static_cast<uint64_t>(i)));
  }
  testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
    const HostTensor signs(DType::kF32, {cols_});
    RandomSigns({.signs = signs, .random = {.seed = 8, .purpose = kRandomTest}}, stream);
    std::vector<uint8_t> bytes = signs.Bytes();
    for (const DType y_dtype : {DType::kF32, DType::kBF16}) {
      for (const bool inverse : {false, true}) {
        const HostTensor y(y_dtype, {rows_, cols_});
        Hadamard({.x = x_, .y = y, .group = group_, .signs = signs, .mask = mask, .inverse = inverse}, stream);
        const std::vector<uint8_t> more = y.Bytes();
        bytes.insert(bytes.end(), more.begin(), more.end());
      }
    }
    return bytes;
  });
}

INSTANTIATE_TEST_SUITE_P(All, HadamardTest,
                         ::testing::ValuesIn(testing::OpCases({{1, 16, 16},
                                                               {3, 48, 16},
                                                               {2, 96, 32},
                                                               {5, 192, 64},
                                                               {7, 384, 128},
                                                               {2, 512, 256},
                                                               {3, 1024, 512},
                                                               {1, 2048, 2048},
                                                               {34, 768, 128}})),
                         testing::OpCaseName);

// Exactly, for every group: unit vector j becomes column j of H.
TEST(HadamardConstantsTest, UnitVectorsBecomeColumns) {
  testing::TestStream stream(1);
  for (int64_t group = kMinHadamardGroup; group <= kMaxHadamardGroup; group *= 4) {
    for (const int64_t j : {int64_t{1}, int64_t{5}, group / 2, group - 1}) {
      const HostTensor x(DType::kF32, {1, group});
      x.as<float>()[j] = 1;
      Hadamard({.x = x, .y = x, .group = group}, stream);
      const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(group)));
      for (int64_t i = 0; i < group; ++i) {
        const bool is_odd = std::popcount(static_cast<uint64_t>(i & j)) % 2 != 0;
        ASSERT_EQ(x.as<float>()[i], is_odd ? -scale : scale) << "group " << group << " column " << j << " row " << i;
      }
    }
  }
}

// quest.md section 5: fwht(e_0 sqrt(128)) = all ones.
TEST(HadamardConstantsTest, FirstUnitVectorBecomesConstant) {
  testing::TestStream stream(1);
  Values unit(128);
  unit[0] = std::sqrt(128.0);
  const HostTensor x = HostTensor::Of(DType::kF32, {1, 128}, unit);
  Hadamard({.x = x, .y = x, .group = 128}, stream);
  EXPECT_THAT(x.ToDoubles(), AllNear(Values(128, 1.0), {.absolute = 2e-7}));
}

// Memory that starts at no multiple of 16 bytes.
TEST(HadamardConstantsTest, AnyAlignment) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Normal(DType::kF32, {129}, 1), y(DType::kF32, {130});
  const TensorView odd_x(x.as<float>() + 1, DType::kF32, {1, 128}), odd_y(y.as<float>() + 2, DType::kF32, {1, 128});
  Hadamard({.x = odd_x, .y = odd_y, .group = 64}, stream);
  const Values values = x.ToDoubles();
  const Values expected = Reference(Values(values.begin() + 1, values.end()), 128, 64, {}, false);
  const Values result = y.ToDoubles();
  EXPECT_THAT(Values(result.begin() + 2, result.end()), AllNear(expected, testing::ToleranceForSum(DType::kF32, 64)));
}

// A NaN spoils its group and no other, in either dtype.
TEST(HadamardConstantsTest, NanStaysInItsGroup) {
  testing::TestStream stream(1);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const HostTensor x = HostTensor::Filled(DType::kF32, {1, 48}, 1);
    x.as<float>()[20] = std::nanf("");
    const HostTensor y(dtype, {1, 48});
    Hadamard({.x = x, .y = y, .group = 16}, stream);
    const Values values = y.ToDoubles();
    for (size_t i = 0; i < 48; ++i) EXPECT_EQ(std::isnan(values[i]), i / 16 == 1) << i;
  }
}

// quartet2.md section 4: the same signs on both operands leave a product as it was, other signs destroy it.
TEST(HadamardConstantsTest, SharedSignsKeepProductsAndOthersDoNot) {
  testing::TestStream stream(1);
  const HostTensor a = HostTensor::Normal(DType::kF32, {1, 256}, 1);
  const auto dot = [&](const HostTensor& signs_a, const HostTensor& signs_b) {
    const HostTensor x = a.Copy();
    const HostTensor y = a.Copy();
    Hadamard({.x = x, .y = x, .group = 128, .signs = signs_a}, stream);
    Hadamard({.x = y, .y = y, .group = 128, .signs = signs_b}, stream);
    double sum = 0;
    for (size_t i = 0; i < 256; ++i) sum += x.ToDoubles()[i] * y.ToDoubles()[i];
    return sum;
  };
  double square = 0;
  for (double value : a.ToDoubles()) square += value * value;
  EXPECT_NEAR(dot(Signs(128, 1), Signs(128, 1)), square, 1e-4);
  EXPECT_LT(std::abs(dot(Signs(128, 1), Signs(128, 2))), 0.5 * square);
}

TEST(RandomSignsTest, SignIsTheHighestBitOfTheWord) {
  const PhiloxKey key{.seed = 11, .step = 4, .purpose = kRandomTest, .tensor = 2};
  const int64_t count = 5003;
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor signs(DType::kF32, {count});
    RandomSigns({.signs = signs, .random = key}, stream);
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      const float expected = (RandomWord(key, static_cast<uint64_t>(i)) >> 31) != 0 ? -1.0f : 1.0f;
      EXPECT_EQ(signs.as<float>()[i], expected) << i;
      sum += static_cast<double>(signs.as<float>()[i]);
    }
    EXPECT_LT(std::abs(sum), 5 * std::sqrt(static_cast<double>(count)));  // five standard deviations
    return signs.Bytes();
  });
}

TEST(HadamardGroupTest, GroupsArePowersOfTwoFrom16To4096) {
  for (const int64_t good : {16, 32, 64, 128, 256, 512, 1024, 2048, 4096}) EXPECT_TRUE(IsHadamardGroup(good)) << good;
  for (const int64_t bad : {-16, 0, 1, 8, 24, 48, 127, 129, 8192}) EXPECT_FALSE(IsHadamardGroup(bad)) << bad;
}

}  // namespace
}  // namespace trainyard::kernels
