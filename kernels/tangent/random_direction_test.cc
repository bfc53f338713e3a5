#include "kernels/tangent/random_direction.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/tangent/random_direction_formula.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

std::vector<double> Normal(int64_t count, uint32_t tensor, uint32_t direction) {
  std::vector<double> out(static_cast<size_t>(count));
  FillDirection({.seed = 5, .direction = direction, .tensor = tensor}, 0, count, out.data());
  return out;
}

TEST(RandomDirectionTest, EntriesDoNotDependOnHowTheyAreAskedFor) {
  std::vector<double> whole(50);
  FillDirection({.seed = 2, .direction = 1, .tensor = 3}, 0, 50, whole.data());
  for (const int64_t begin : {0, 1, 2, 3, 7}) {
    std::vector<float> part(11);
    FillDirection({.seed = 2, .direction = 1, .tensor = 3}, begin, 11, part.data());
    for (size_t i = 0; i < part.size(); ++i) EXPECT_EQ(part[i], whole[static_cast<size_t>(begin) + i]);
  }
}

// Ranges that begin and end inside a block of four, one of a single entry, one behind 2^32, and several grids' worth.
TEST(RandomDirectionTest, ADeviceGivesTheBitsOfTheHost) {
  struct Range {
    int64_t begin, count;
  };
  for (const Range& range :
       {Range{0, 16}, Range{1, 1}, Range{3, 2}, Range{6, 13}, Range{(int64_t{1} << 32) + 5, 9}, Range{2, 9000}}) {
    const DirectionKey key{.seed = 11, .direction = 2, .tensor = 9};
    std::vector<float> expected(static_cast<size_t>(range.count));
    FillDirection(key, range.begin, range.count, expected.data());
    testing::TestStream stream(1);
    const HostTensor out(DType::kF32, {range.count});
    FillDirection(key, range.begin, range.count, static_cast<float*>(out.view().data()), stream);
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(out.as<float>()[i], expected[i]) << range.begin << " " << i;
  }
}

TEST(RandomDirectionTest, ThreadsChangeNoBit) {
  testing::ExpectSameBitsForAnyThreadCount([](Stream& stream) {
    const HostTensor out(DType::kF32, {10'001});
    FillDirection({.seed = 4}, 3, 10'001, static_cast<float*>(out.view().data()), stream);
    return out.Bytes();
  });
}

// Our polynomials beside the library's functions in double, at the ends of their ranges and in between.
TEST(RandomDirectionTest, FunctionsAreThoseOfTheLibrary) {
  std::vector<uint32_t> words = {0,          1,          2,          0x7FFFFFFF, 0x80000000, 0xB504F332, 0xB504F333,
                                 0xB504F334, 0xFFFFFFFF, 0xFFFFFFFE, 0x1FFFFFFF, 0x20000000, 0x40000000, 0x60000000,
                                 0xA0000000, 0xC0000000, 0xDFFFFFFF, 0xE0000000, 0x3FFFFFFF, 0x40000001};
  for (uint32_t i = 0; i < 20'000; ++i) words.push_back(RandomWord({.seed = 8, .purpose = kRandomTest}, i));
  for (const uint32_t word : words) {
    const double log = std::log((static_cast<double>(word) + 1) * 0x1p-32);
    EXPECT_NEAR(internal::LogOfFraction(word), log, 1e-15 * std::abs(log)) << word;
    double cosine, sine;
    internal::CosineAndSine(word, &cosine, &sine);
    const double angle = static_cast<double>(word) * (0x1p-32 * 6.283185307179586);
    EXPECT_NEAR(cosine, std::cos(angle), 1.5e-15) << word;
    EXPECT_NEAR(sine, std::sin(angle), 1.5e-15) << word;
  }
  float normals[4];
  internal::DirectionNormals({.seed = 8}, 77, normals);  // no NaN, not all the same
  EXPECT_TRUE(std::isfinite(normals[0]) && normals[0] != normals[1]);
}

// 40,000 entries: the mean is within 5 standard errors, as is the variance; directions are uncorrelated.
TEST(RandomDirectionTest, EntriesAreStandardNormalAndIndependent) {
  constexpr double kCount = 40'000;
  const std::vector<double> a = Normal(40'000, 1, 0), b = Normal(40'000, 1, 1);
  double sum = 0, squares = 0, product = 0, fourth = 0, neighbours = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += a[i];
    squares += a[i] * a[i];
    fourth += std::pow(a[i], 4);
    product += a[i] * b[i];
    neighbours += a[i] * a[(i + 1) % a.size()];
  }
  EXPECT_LT(std::abs(sum / kCount), 5 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 1, 5 * std::sqrt(2 / kCount));
  EXPECT_NEAR(fourth / kCount, 3, 5 * std::sqrt(96 / kCount));
  EXPECT_LT(std::abs(product / kCount), 5 / std::sqrt(kCount));
  EXPECT_LT(std::abs(neighbours / kCount), 5 / std::sqrt(kCount));
}

}  // namespace
}  // namespace trainyard::kernels
