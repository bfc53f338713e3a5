#include "kernels/optim/newton_schulz.h"

#include <algorithm>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using Values = std::vector<double>;

constexpr auto kFixed = NewtonSchulzCoefficients::kFixed;
constexpr auto kScheduled = NewtonSchulzCoefficients::kScheduled;

HostTensor Orthogonalized(const HostTensor& x, NewtonSchulzCoefficients coefficients, DType precision, int steps,
                          Stream& stream) {
  HostTensor result = x.Copy();
  const int64_t rows = x.view().dim(0), cols = x.view().dim(1);
  const HostTensor workspace(DType::kU8, {NewtonSchulzWorkspaceBytes(rows, cols, precision)});
  NewtonSchulz(
      {.x = result, .steps = steps, .coefficients = coefficients, .precision = precision, .workspace = workspace},
      stream);
  return result;
}

// a b^T; a (m, k), b (n, k).
Values TimesTransposed(const Values& a, const Values& b, int64_t k) {
  const size_t depth = static_cast<size_t>(k), m = a.size() / depth, n = b.size() / depth;
  Values c(m * n);
  for (size_t i = 0; i < m; ++i) {
    for (size_t j = 0; j < n; ++j) {
      for (size_t p = 0; p < depth; ++p) c[i * n + j] += a[i * depth + p] * b[j * depth + p];
    }
  }
  return c;
}

Values Transposed(const Values& a, int64_t cols) {
  const size_t n = static_cast<size_t>(cols), m = a.size() / n;
  Values t(a.size());
  for (size_t i = 0; i < m; ++i) {
    for (size_t j = 0; j < n; ++j) t[j * m + i] = a[i * n + j];
  }
  return t;
}

// The formulas in double, always on the left.
Values Reference(Values x, int64_t rows, int64_t cols, NewtonSchulzCoefficients coefficients, int steps) {
  const double schedule[5][3] = {{4.0848, -6.8946, 2.9270},
                                 {3.9505, -6.3029, 2.6377},
                                 {3.7418, -5.5913, 2.3037},
                                 {2.8769, -3.1427, 1.2046},
                                 {2.8366, -3.0525, 1.2012}};
  const double fixed[3] = {3.4445, -4.7750, 2.0315};
  double squares = 0;
  for (const double value : x) squares += value * value;
  for (double& value : x) value /= std::sqrt(squares) + 1e-7;
  for (int step = 0; step < steps; ++step) {
    const double* k = coefficients == kFixed ? fixed : schedule[std::min(step, 4)];
    const Values a = TimesTransposed(x, x, cols);
    const Values a2 = TimesTransposed(a, a, rows);
    Values polynomial(a.size());
    for (size_t i = 0; i < a.size(); ++i) polynomial[i] = k[1] * a[i] + k[2] * a2[i];
    const Values product = TimesTransposed(polynomial, Transposed(x, cols), rows);
    for (size_t i = 0; i < x.size(); ++i) x[i] = k[0] * x[i] + product[i];
  }
  return x;
}

// Of x (rows, cols), ascending: roots of the eigenvalues of x^T x, by Jacobi rotations.
Values SingularValues(const Values& x, int64_t cols) {
  const size_t n = static_cast<size_t>(cols), rows = x.size() / n;
  Values gram = TimesTransposed(Transposed(x, cols), Transposed(x, cols), static_cast<int64_t>(rows));
  for (int sweep = 0; sweep < 30; ++sweep) {
    for (size_t p = 0; p < n; ++p) {
      for (size_t q = p + 1; q < n; ++q) {
        const double angle = 0.5 * std::atan2(2 * gram[p * n + q], gram[q * n + q] - gram[p * n + p]);
        const double c = std::cos(angle), s = std::sin(angle);
        for (size_t i = 0; i < n; ++i) {
          const double a = gram[i * n + p], b = gram[i * n + q];
          gram[i * n + p] = c * a - s * b;
          gram[i * n + q] = s * a + c * b;
        }
        for (size_t i = 0; i < n; ++i) {
          const double a = gram[p * n + i], b = gram[q * n + i];
          gram[p * n + i] = c * a - s * b;
          gram[q * n + i] = s * a + c * b;
        }
      }
    }
  }
  Values values;
  for (size_t i = 0; i < n; ++i) values.push_back(std::sqrt(gram[i * n + i]));
  std::sort(values.begin(), values.end());
  return values;
}

class NewtonSchulzTest : public ::testing::TestWithParam<std::pair<int64_t, int64_t>> {
 protected:
  const int64_t rows_ = GetParam().first, cols_ = GetParam().second;
  const HostTensor x_ = HostTensor::Normal(DType::kF32, {rows_, cols_}, 1, 3.0);
};

TEST_P(NewtonSchulzTest, MatchesTheFormulasInDouble) {
  testing::TestStream stream(2);
  for (const auto coefficients : {kFixed, kScheduled}) {
    for (const int steps : {1, 2, 5, 7}) {
      // Each step stretches small errors by up to 4.
      EXPECT_THAT(Orthogonalized(x_, coefficients, DType::kF32, steps, stream).ToDoubles(),
                  AllNear(Reference(x_.ToDoubles(), rows_, cols_, coefficients, steps), {.absolute = 5e-4}))
          << steps;
    }
  }
}

TEST_P(NewtonSchulzTest, SameBitsForAnyThreadCount) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    testing::ExpectSameBitsForAnyThreadCount(
        [&](Stream& stream) { return Orthogonalized(x_, kFixed, precision, 3, stream).Bytes(); });
  }
}

INSTANTIATE_TEST_SUITE_P(All, NewtonSchulzTest,
                         ::testing::Values(std::pair{1, 1}, std::pair{5, 9}, std::pair{9, 5}, std::pair{33, 120},
                                           std::pair{70, 16}));

// dct-lowrank.md section 5: 0.683 to 1.043 for such an input, in double. Without the division by the norm, or with the
// signs of b or c wrong, values leave the band at once.
TEST(NewtonSchulz, SingularValuesEndInTheBandAroundOne) {
  testing::TestStream stream(2);
  for (const auto& [rows, cols] : {std::pair{128, 32}, std::pair{32, 128}}) {
    const HostTensor x = HostTensor::Normal(DType::kF32, {rows, cols}, 7);
    const auto values_of = [&](DType precision, NewtonSchulzCoefficients coefficients) {
      Values result = Orthogonalized(x, coefficients, precision, 5, stream).ToDoubles();
      if (cols > rows) result = Transposed(result, cols);
      return SingularValues(result, 32);
    };
    const Values fixed = values_of(DType::kF32, kFixed);
    EXPECT_GT(fixed.front(), 0.66);
    EXPECT_LT(fixed.back(), 1.15);
    const Values rounded = values_of(DType::kBF16, kFixed);
    EXPECT_GT(rounded.front(), 0.5);
    EXPECT_LT(rounded.back(), 1.3);
    const Values scheduled = values_of(DType::kF32, kScheduled);
    EXPECT_GT(scheduled.front(), 0.9);
    EXPECT_LT(scheduled.back(), 1.1);
  }
}

// A gradient of zeros (a layer that nothing reaches) is divided by 1e-7, not by 0.
TEST(NewtonSchulz, ZerosStayZeros) {
  testing::TestStream stream(1);
  const HostTensor x(DType::kF32, {4, 3});
  EXPECT_EQ(Orthogonalized(x, kFixed, DType::kF32, 5, stream).ToDoubles(), Values(12, 0.0));
}

}  // namespace
}  // namespace trainyard::kernels
