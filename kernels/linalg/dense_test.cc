#include "kernels/linalg/dense.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace trainyard::kernels {
namespace {

using ::testing::HasSubstr;

std::vector<double> RandomNumbers(size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> numbers(count);
  for (double& number : numbers) number = normal(random);
  return numbers;
}

// Strides that are longer than the rows, and both transposes: a wrong leading dimension reads the neighbours.
TEST(ProductTest, EqualsTheSumOfItsTerms) {
  constexpr int64_t kM = 3, kN = 4, kK = 5, kStride = 9;
  const std::vector<double> a = RandomNumbers(kStride * kStride, 1), b = RandomNumbers(kStride * kStride, 2);
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      std::vector<double> c(kM * kStride, 7.0);
      Product<double>({.transpose_a = ta,
                       .transpose_b = tb,
                       .m = kM,
                       .n = kN,
                       .k = kK,
                       .alpha = 2,
                       .a = a.data(),
                       .lda = kStride,
                       .b = b.data(),
                       .ldb = kStride,
                       .beta = 0.5,
                       .c = c.data(),
                       .ldc = kStride});
      for (int64_t i = 0; i < kM; ++i) {
        for (int64_t j = 0; j < kN; ++j) {
          double sum = 3.5;
          for (int64_t k = 0; k < kK; ++k) {
            sum += 2 * a[static_cast<size_t>(ta ? k * kStride + i : i * kStride + k)] *
                   b[static_cast<size_t>(tb ? j * kStride + k : k * kStride + j)];
          }
          EXPECT_NEAR(c[static_cast<size_t>(i * kStride + j)], sum, 1e-12);
        }
      }
      EXPECT_EQ(c[kN], 7.0);  // beyond the columns
    }
  }
}

TEST(SolveTest, MultipliedBackGivesTheRightSide) {
  constexpr size_t kSize = 40, kCols = 3;
  const std::vector<double> g = RandomNumbers(kSize * kSize, 3), right = RandomNumbers(kSize * kCols, 4);
  std::vector<double> matrix(kSize * kSize);
  for (size_t i = 0; i < kSize; ++i) {
    for (size_t j = 0; j < kSize; ++j) {
      for (size_t k = 0; k < kSize; ++k) matrix[i * kSize + j] += g[i * kSize + k] * g[j * kSize + k];
    }
    matrix[i * kSize + i] += 1;
  }
  std::vector<double> factor = matrix, solution = right;
  ASSERT_OK(SolvePositiveDefinite(factor.data(), kSize, solution.data(), kCols));
  for (size_t i = 0; i < kSize; ++i) {
    for (size_t c = 0; c < kCols; ++c) {
      double sum = 0;
      for (size_t k = 0; k < kSize; ++k) sum += matrix[i * kSize + k] * solution[k * kCols + c];
      EXPECT_NEAR(sum, right[i * kCols + c], 1e-9);
    }
  }
}

TEST(SolveTest, WhatIsNotPositiveDefiniteIsRefused) {
  std::vector<double> indefinite = {1, 2, 2, 1}, right = {1, 1};
  EXPECT_THAT(SolvePositiveDefinite(indefinite.data(), 2, right.data(), 1),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("row 1")));
  std::vector<double> nan = {std::numeric_limits<double>::quiet_NaN(), 0, 0, 1};
  EXPECT_FALSE(SolvePositiveDefinite(nan.data(), 2, right.data(), 1).ok());
}

}  // namespace
}  // namespace trainyard::kernels
