#include "kernels/prune/linalg/cholesky.h"

#include <cmath>
#include <vector>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

std::vector<double> RandomPositiveDefinite(int64_t size) {
  const std::vector<double> x = testing::HostTensor::Normal(DType::kF32, {2 * size, size}, 3).ToDoubles();
  std::vector<double> matrix(static_cast<size_t>(size * size));
  for (int64_t r = 0; r < 2 * size; ++r) {
    for (int64_t i = 0; i < size; ++i) {
      for (int64_t j = 0; j < size; ++j) {
        matrix[static_cast<size_t>(i * size + j)] +=
            x[static_cast<size_t>(r * size + i)] * x[static_cast<size_t>(r * size + j)];
      }
    }
  }
  return matrix;
}

// U^T U H = 1 and U is upper: a lower factor, or the factor of H itself, fails.
TEST(CholeskyTest, FactorsTheInverse) {
  for (const int64_t size : {1, 2, 7, 40}) {
    const std::vector<double> h = RandomPositiveDefinite(size);
    std::vector<double> u = h;
    ASSERT_OK(InverseCholesky(u.data(), size));
    const auto at = [size](const std::vector<double>& m, int64_t i, int64_t j) {
      return m[static_cast<size_t>(i * size + j)];
    };
    for (int64_t i = 0; i < size; ++i) {
      EXPECT_GT(at(u, i, i), 0);
      for (int64_t j = 0; j < i; ++j) EXPECT_EQ(at(u, i, j), 0);
      for (int64_t j = 0; j < size; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < size; ++k) {
          double inverse = 0;
          for (int64_t l = 0; l < size; ++l) inverse += at(u, l, i) * at(u, l, k);
          sum += inverse * at(h, k, j);
        }
        EXPECT_NEAR(sum, i == j ? 1 : 0, 1e-9);
      }
    }
  }
}

TEST(CholeskyTest, RefusesWhatIsNotPositiveDefinite) {
  std::vector<double> matrix = {1, 2, 2, 1};
  EXPECT_THAT(InverseCholesky(matrix.data(), 2),
              StatusIs(absl::StatusCode::kFailedPrecondition, ::testing::HasSubstr("not positive definite")));
}

TEST(CholeskyTest, SubtractsAProductInside) {
  const std::vector<double> a = {1, 2, 0, 3, 4, 0}, b = {1, 10, 100, 1000};
  std::vector<double> c = {1, 1, 9, 1, 1, 9};
  SubtractProduct({.m = 2, .n = 2, .k = 2, .a = a.data(), .lda = 3, .b = b.data(), .ldb = 2, .c = c.data(), .ldc = 3});
  EXPECT_EQ(c, (std::vector<double>{1 - 201, 1 - 2010, 9, 1 - 403, 1 - 4030, 9}));
}

}  // namespace
}  // namespace trainyard::kernels
