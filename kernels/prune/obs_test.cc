#include "kernels/prune/obs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/prune/linalg/cholesky.h"
#include "kernels/prune/obs_elimination.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HostTensor;

// (rows, cols), row-major.
struct Matrix {
  Matrix(int64_t r, int64_t c) : rows(r), cols(c), values(static_cast<size_t>(r * c)) {}
  static Matrix Normal(int64_t rows, int64_t cols, uint64_t seed) {
    Matrix m(rows, cols);
    m.values = HostTensor::Normal(DType::kF32, {rows, cols}, seed).ToDoubles();
    return m;
  }
  double& operator()(int64_t r, int64_t c) { return values[static_cast<size_t>(r * cols + c)]; }
  double operator()(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * cols + c)]; }

  int64_t rows, cols;
  std::vector<double> values;
};

Matrix Product(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.cols);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t k = 0; k < a.cols; ++k) {
      for (int64_t j = 0; j < b.cols; ++j) c(i, j) += a(i, k) * b(k, j);
    }
  }
  return c;
}
Matrix Transposed(const Matrix& a) {
  Matrix t(a.cols, a.rows);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < a.cols; ++j) t(j, i) = a(i, j);
  }
  return t;
}
// By Gauss and Jordan, without BLAS.
Matrix Inverse(Matrix a) {
  const int64_t n = a.rows;
  Matrix inverse(n, n);
  for (int64_t i = 0; i < n; ++i) inverse(i, i) = 1;
  for (int64_t p = 0; p < n; ++p) {
    int64_t pivot = p;
    for (int64_t r = p; r < n; ++r) {
      if (std::abs(a(r, p)) > std::abs(a(pivot, p))) pivot = r;
    }
    for (int64_t c = 0; c < n; ++c) {
      std::swap(a(p, c), a(pivot, c));
      std::swap(inverse(p, c), inverse(pivot, c));
    }
    const double factor = a(p, p);
    for (int64_t c = 0; c < n; ++c) {
      a(p, c) /= factor;
      inverse(p, c) /= factor;
    }
    for (int64_t r = 0; r < n; ++r) {
      const double f = a(r, p);
      if (r == p || f == 0) continue;
      for (int64_t c = 0; c < n; ++c) {
        a(r, c) -= f * a(p, c);
        inverse(r, c) -= f * inverse(p, c);
      }
    }
  }
  return inverse;
}
Matrix Select(const Matrix& a, const std::vector<int64_t>& rows, const std::vector<int64_t>& cols) {
  Matrix s(static_cast<int64_t>(rows.size()), static_cast<int64_t>(cols.size()));
  for (int64_t i = 0; i < s.rows; ++i) {
    for (int64_t j = 0; j < s.cols; ++j) s(i, j) = a(rows[static_cast<size_t>(i)], cols[static_cast<size_t>(j)]);
  }
  return s;
}
std::vector<int64_t> Range(int64_t begin, int64_t end) {
  std::vector<int64_t> range(static_cast<size_t>(end - begin));
  std::iota(range.begin(), range.end(), begin);
  return range;
}

// Correlated inputs: each column leans on the one before.
Matrix Inputs(int64_t samples, int64_t cols, uint64_t seed) {
  Matrix x = Matrix::Normal(samples, cols, seed);
  for (int64_t i = 0; i < samples; ++i) {
    for (int64_t j = 1; j < cols; ++j) x(i, j) += 0.7 * x(i, j - 1);
  }
  return x;
}
Matrix Hessian(const Matrix& x) {
  Matrix h = Product(Transposed(x), x);
  for (double& value : h.values) value *= 2.0 / static_cast<double>(x.rows);
  return h;
}

struct Trace {
  std::vector<int64_t> order;
  std::vector<double> scores;
  Matrix w;  // after the last removal
};

// Section 2.1 as it is written, with every matrix updated at once and the inverse of the surviving columns computed
// afresh for each step.
Trace Naive(Matrix w, const Matrix& h, int64_t group, int64_t removals) {
  Trace run{{}, {}, Matrix(0, 0)};
  std::vector<bool> removed(static_cast<size_t>(w.cols / group), false);
  for (int64_t step = 0; step < removals; ++step) {
    std::vector<int64_t> left;
    for (int64_t c = 0; c < w.cols; ++c) {
      if (!removed[static_cast<size_t>(c / group)]) left.push_back(c);
    }
    const Matrix small = Inverse(Select(h, left, left));
    Matrix p(w.cols, w.cols);
    for (size_t i = 0; i < left.size(); ++i) {
      for (size_t j = 0; j < left.size(); ++j) {
        p(left[i], left[j]) = small(static_cast<int64_t>(i), static_cast<int64_t>(j));
      }
    }
    int64_t best = -1;
    double best_score = std::numeric_limits<double>::infinity();
    for (int64_t g = 0; g < w.cols / group; ++g) {
      if (removed[static_cast<size_t>(g)]) continue;
      const std::vector<int64_t> columns = Range(g * group, (g + 1) * group);
      const Matrix wg = Select(w, Range(0, w.rows), columns);
      const Matrix scored = Product(Product(wg, Inverse(Select(p, columns, columns))), Transposed(wg));
      double score = 0;
      for (int64_t r = 0; r < w.rows; ++r) score += scored(r, r);
      if (score < best_score) {
        best = g;
        best_score = score;
      }
    }
    const std::vector<int64_t> columns = Range(best * group, (best + 1) * group);
    const Matrix update = Product(Product(Select(w, Range(0, w.rows), columns), Inverse(Select(p, columns, columns))),
                                  Select(p, columns, Range(0, w.cols)));
    for (size_t i = 0; i < w.values.size(); ++i) w.values[i] -= update.values[i];
    for (int64_t r = 0; r < w.rows; ++r) {
      for (int64_t c : columns) w(r, c) = 0;
    }
    removed[static_cast<size_t>(best)] = true;
    run.order.push_back(best);
    run.scores.push_back(best_score);
  }
  run.w = w;
  return run;
}

Trace Eliminate(const Matrix& w, const Matrix& h, int64_t group, int64_t removals, int64_t delay, Stream& stream) {
  absl::StatusOr<ObsElimination> state =
      ObsElimination::Create({.rows = w.rows, .cols = w.cols, .group = group, .delay = delay}, w.values, h.values);
  TY_CHECK_OK(state);
  Trace run{{}, {}, Matrix(w.rows, w.cols)};
  for (int64_t i = 0; i < removals; ++i) {
    const ObsElimination::Removal removal = state->RemoveNext(stream);
    run.order.push_back(removal.group);
    run.scores.push_back(removal.score);
  }
  const std::vector<double>& transposed = state->TransposedWeights(stream);
  for (int64_t r = 0; r < w.rows; ++r) {
    for (int64_t c = 0; c < w.cols; ++c) run.w(r, c) = transposed[static_cast<size_t>(c * w.rows + r)];
  }
  return run;
}

double LargestDifference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

// Evidence 1. Both scores are 1.5: the lower index goes.
TEST(ObsTest, ClosedForm) {
  testing::TestStream stream(1);
  HostTensor w = HostTensor::Of(DType::kF32, {1, 2}, {1, 1});
  HostTensor h = HostTensor::Of(DType::kF32, {2, 2}, {2, 1, 1, 2});
  const std::vector<int32_t> removed = {0, 1, 2};
  std::vector<ObsLevel> levels;
  ASSERT_OK(ObsLevels(
      {.w = w, .hessian = h, .removed = removed, .relative_damping = 0},
      [&](const ObsLevel& level) {
        levels.push_back(level);
        return absl::OkStatus();
      },
      stream));
  ASSERT_EQ(levels.size(), 3u);
  EXPECT_EQ(levels[0].weights, std::vector<float>({1, 1}));
  EXPECT_EQ(levels[1].kept, std::vector<int32_t>({1}));
  EXPECT_EQ(levels[1].weights, std::vector<float>({1.5}));
  EXPECT_DOUBLE_EQ(levels[1].error, 0.75);
  EXPECT_THAT(levels[2].kept, ElementsAre());
  // The last column costs w^2 H_11 = 1.5^2 * 2 more: in all W H W^T / 2 = 3.
  EXPECT_DOUBLE_EQ(levels[2].error, 3.0);
}

// Evidence 2.
TEST(ObsTest, SurvivorsAreTheLeastSquaresRefitAndScoresAreTheTrace) {
  testing::TestStream stream(1);
  const Matrix w = Matrix::Normal(3, 6, 1);
  const Matrix x = Inputs(40, 6, 2);
  const Matrix h = Hessian(x);
  const Trace run = Eliminate(w, h, 1, 3, 64, stream);
  std::vector<int64_t> kept;
  for (int64_t c = 0; c < 6; ++c) {
    if (std::find(run.order.begin(), run.order.end(), c) == run.order.end()) kept.push_back(c);
  }
  const Matrix refit = Product(Product(w, Select(h, Range(0, 6), kept)), Inverse(Select(h, kept, kept)));
  EXPECT_LT(LargestDifference(Select(run.w, Range(0, 3), kept).values, refit.values), 1e-12);

  Matrix dw = w;
  for (size_t i = 0; i < dw.values.size(); ++i) dw.values[i] -= run.w.values[i];
  const Matrix trace = Product(Product(dw, h), Transposed(dw));
  const double scores = std::accumulate(run.scores.begin(), run.scores.end(), 0.0);
  EXPECT_NEAR(scores, trace(0, 0) + trace(1, 1) + trace(2, 2), 1e-12);
  const Matrix outputs = Product(dw, Transposed(x));
  double squares = 0;
  for (double value : outputs.values) squares += value * value;
  EXPECT_NEAR(scores / 2, squares / static_cast<double>(x.rows), 1e-12);
}

struct Case {
  int64_t rows, cols, group, removals;
};

class ObsOrderTest : public ::testing::TestWithParam<Case> {};

// Section 4: kept norms and delayed updates change neither the order nor, beyond rounding, scores and weights. Delays
// of one, of an odd number, and longer than all removals.
TEST_P(ObsOrderTest, DelayedUpdatesAreTheNaiveElimination) {
  testing::TestStream stream(1);
  const Case c = GetParam();
  const Matrix w = Matrix::Normal(c.rows, c.cols, 5);
  const Matrix h = Hessian(Inputs(4 * c.cols, c.cols, 6));
  const Trace expected = Naive(w, h, c.group, c.removals);
  for (int64_t delay : {1, 5, 32, 1000}) {
    const Trace run = Eliminate(w, h, c.group, c.removals, delay, stream);
    EXPECT_EQ(run.order, expected.order) << "delay " << delay;
    EXPECT_LT(LargestDifference(run.scores, expected.scores), 1e-8 * expected.scores.back()) << "delay " << delay;
    EXPECT_LT(LargestDifference(run.w.values, expected.w.values), 1e-8) << "delay " << delay;
  }
}

INSTANTIATE_TEST_SUITE_P(All, ObsOrderTest,
                         ::testing::Values(Case{7, 48, 1, 47}, Case{1, 5, 1, 5}, Case{9, 48, 8, 5}, Case{4, 24, 3, 7},
                                           Case{3, 6, 6, 1}));

TEST(ObsTest, ThreadCountShowsInNoBit) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const Trace run = Eliminate(Matrix::Normal(17, 300, 1), Hessian(Inputs(600, 300, 2)), 4, 60, 16, stream);
    std::vector<uint8_t> bytes(run.w.values.size() * sizeof(double));
    std::memcpy(bytes.data(), run.w.values.data(), bytes.size());
    return bytes;
  });
}

struct Levels {
  Levels(int64_t rows, int64_t cols)
      : w(HostTensor::Normal(DType::kF32, {rows, cols}, 3)), h(DType::kF32, {cols, cols}) {
    const Matrix hessian = Hessian(Inputs(3 * cols, cols, 4));
    h = HostTensor::Of(DType::kF32, {cols, cols}, hessian.values);
  }
  absl::StatusOr<std::vector<ObsLevel>> Run(const std::vector<int32_t>& removed, int64_t group = 1,
                                            bool by_magnitude = false, double damping = 0.01) {
    testing::TestStream stream(1);
    std::vector<ObsLevel> levels;
    const absl::Status status = ObsLevels(
        {.w = w,
         .hessian = h,
         .group = group,
         .removed = removed,
         .relative_damping = damping,
         .by_magnitude = by_magnitude},
        [&](const ObsLevel& level) {
          levels.push_back(level);
          return absl::OkStatus();
        },
        stream);
    if (!status.ok()) return status;
    return levels;
  }
  HostTensor w, h;
};

// Evidence 3.
TEST(ObsLevelsTest, RemovedSetsAreNestedAndWholeGroups) {
  for (const bool by_magnitude : {false, true}) {
    Levels levels(5, 32);
    ASSERT_OK_AND_ASSIGN(const std::vector<ObsLevel> result, levels.Run({0, 4, 12, 20, 32}, 4, by_magnitude));
    ASSERT_EQ(result.size(), 5u);
    EXPECT_EQ(std::vector<float>(levels.w.as<float>(), levels.w.as<float>() + 160), result[0].weights);
    EXPECT_EQ(result[0].error, 0);
    EXPECT_TRUE(result[4].kept.empty());
    EXPECT_TRUE(result[4].weights.empty());
    for (size_t i = 1; i < result.size(); ++i) {
      EXPECT_TRUE(std::includes(result[i - 1].kept.begin(), result[i - 1].kept.end(), result[i].kept.begin(),
                                result[i].kept.end()));
      EXPECT_GT(result[i].error, result[i - 1].error);
      std::map<int32_t, int> kept_of_group;
      for (int32_t col : result[i].kept) ++kept_of_group[col / 4];
      for (const auto& [group, kept] : kept_of_group) EXPECT_EQ(kept, 4) << "group " << group;
      EXPECT_EQ(result[i].weights.size(), result[i].kept.size() * 5);
    }
  }
}

// The order and the errors of a baseline that is simple enough to say again: lowest norm first, nothing else changed.
TEST(ObsLevelsTest, ByMagnitudeKeepsTheRestAsItIsAndTellsItsError) {
  Levels levels(5, 12);
  ASSERT_OK_AND_ASSIGN(const std::vector<ObsLevel> result, levels.Run({0, 7, 12}, 1, true));
  const float* const w = levels.w.as<float>();
  const float* const h = levels.h.as<float>();
  const auto norm = [&](int32_t col) {
    double sum = 0;
    for (int64_t row = 0; row < 5; ++row) sum += double{w[row * 12 + col]} * w[row * 12 + col];
    return sum;
  };
  std::set<int32_t> kept(result[1].kept.begin(), result[1].kept.end());
  double error = 0;
  for (int32_t a = 0; a < 12; ++a) {
    if (kept.count(a) > 0) continue;
    for (int32_t b : kept) EXPECT_LT(norm(a), norm(b));
    for (int32_t b = 0; b < 12; ++b) {
      if (kept.count(b) > 0) continue;
      for (int64_t row = 0; row < 5; ++row) error += 0.5 * double{w[row * 12 + a]} * h[a * 12 + b] * w[row * 12 + b];
    }
  }
  EXPECT_NEAR(result[1].error, error, 1e-9 * error);
  for (size_t i = 0; i < result[1].kept.size(); ++i) EXPECT_EQ(result[1].weights[i], w[result[1].kept[i]]);
  // Compensation is what OBS is for.
  ASSERT_OK_AND_ASSIGN(const std::vector<ObsLevel> obs, levels.Run({0, 7, 12}, 1, false));
  EXPECT_LT(obs[1].error, result[1].error);
}

// A channel that no input reaches and one whose weights are zero go first, for nothing, and cost no division by zero.
TEST(ObsLevelsTest, DeadColumnsGoFirst) {
  Levels levels(4, 8);
  for (int64_t i = 0; i < 8; ++i) levels.h.as<float>()[5 * 8 + i] = levels.h.as<float>()[i * 8 + 5] = 0;
  for (int64_t row = 0; row < 4; ++row) levels.w.as<float>()[row * 8 + 2] = 0;
  ASSERT_OK_AND_ASSIGN(const std::vector<ObsLevel> result, levels.Run({0, 2, 8}));
  EXPECT_THAT(result[1].kept, ElementsAre(0, 1, 3, 4, 6, 7));
  EXPECT_EQ(result[1].error, 0);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_FLOAT_EQ(result[1].weights[i], levels.w.as<float>()[result[1].kept[i]]) << "nothing had to be moved";
  }
}

TEST(ObsLevelsTest, DampingSavesInputsThatAreLinearlyDependent) {
  Levels levels(4, 8);
  const Matrix few = Hessian(Inputs(3, 8, 9));
  levels.h = HostTensor::Of(DType::kF32, {8, 8}, few.values);
  EXPECT_THAT(levels.Run({0, 4, 8}, 1, false, 0),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("definite")));
  ASSERT_OK_AND_ASSIGN(const std::vector<ObsLevel> result, levels.Run({0, 4, 8}));
  for (float value : result[1].weights) EXPECT_TRUE(std::isfinite(value));
}

TEST(ObsLevelsTest, RefusesWhatIsNotFinite) {
  Levels levels(2, 4);
  levels.h.as<float>()[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(levels.Run({0, 4}), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("element 3 is")));
  Levels other(2, 4);
  other.w.as<float>()[1] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(other.Run({0, 4}), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("weights: element 1")));
}

// A block that is not positive definite has a pseudo-inverse: root root^T block root root^T = root root^T.
TEST(InverseRootTest, OfRegularAndOfSingularBlocks) {
  for (const int64_t rank : {1, 3, 6}) {
    const Matrix x = Matrix::Normal(rank, 6, 8);
    const Matrix block = Product(Transposed(x), x);
    Matrix root(6, 6);
    InverseRoot(block.values.data(), 6, root.values.data());
    const Matrix inverse = Product(root, Transposed(root));
    const Matrix again = Product(Product(inverse, block), inverse);
    double scale = 0;
    for (double value : inverse.values) scale = std::max(scale, std::abs(value));
    EXPECT_LT(LargestDifference(again.values, inverse.values), 1e-8 * scale) << "rank " << rank;
    EXPECT_GT(scale, 0);
  }
}

TEST(HessianTest, AddsTheProductsOfRows) {
  for (const int64_t cols : {1, 7, 300}) {
    testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
      HostTensor hessian(DType::kF32, {cols, cols});
      std::vector<double> expected(static_cast<size_t>(cols * cols));
      for (uint64_t part : {1, 2}) {
        const HostTensor x = HostTensor::Normal(DType::kF32, {11, cols}, part);
        const std::vector<double> values = x.ToDoubles();
        for (int64_t t = 0; t < 11; ++t) {
          for (int64_t i = 0; i < cols; ++i) {
            for (int64_t j = 0; j < cols; ++j) {
              expected[static_cast<size_t>(i * cols + j)] +=
                  2 * values[static_cast<size_t>(t * cols + i)] * values[static_cast<size_t>(t * cols + j)];
            }
          }
        }
        AccumulateHessian({.x = x, .hessian = hessian}, stream);
      }
      MirrorHessian(hessian, stream);
      EXPECT_LT(LargestDifference(hessian.ToDoubles(), expected), 1e-4);
      return hessian.Bytes();
    });
  }
}

}  // namespace
}  // namespace trainyard::kernels
