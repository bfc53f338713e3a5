#include "worker/prune/one_shot.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/prune/radix_select.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::prune {
namespace {

using kernels::DType;
using kernels::testing::AllNear;
using kernels::testing::HostTensor;
using Matrix = std::vector<std::vector<double>>;

// Inputs whose columns have a common part and very different sizes.
HostTensor CorrelatedInputs(int64_t rows, int64_t in, uint64_t seed) {
  const HostTensor own = HostTensor::Normal(DType::kF32, {rows, in}, seed);
  const HostTensor common = HostTensor::Normal(DType::kF32, {rows, 3}, seed + 1);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < in; ++i) {
      float& x = own.as<float>()[r * in + i];
      x = (0.5f * x + common.as<float>()[r * 3 + i % 3]) * (0.1f + static_cast<float>((i * 7) % 11));
    }
  }
  return HostTensor::Of(DType::kF32, {rows, in}, own.ToDoubles());
}

InputMoments MomentsOf(const HostTensor& x, bool products) {
  kernels::Stream stream(1);
  InputMoments moments(x.view().dim(1), products);
  moments.Add(x, stream);
  return moments;
}

Matrix Rows(const std::vector<double>& values, int64_t cols) {
  Matrix rows;
  for (size_t i = 0; i < values.size(); i += static_cast<size_t>(cols)) {
    rows.emplace_back(values.begin() + static_cast<int64_t>(i), values.begin() + static_cast<int64_t>(i) + cols);
  }
  return rows;
}

// By Gauss and Jordan, for small and well-conditioned matrices.
Matrix Inverse(Matrix a) {
  const size_t n = a.size();
  for (size_t i = 0; i < n; ++i) {
    a[i].resize(2 * n);
    a[i][n + i] = 1;
  }
  for (size_t i = 0; i < n; ++i) {
    const double pivot = a[i][i];
    for (double& x : a[i]) x /= pivot;
    for (size_t j = 0; j < n; ++j) {
      const double factor = a[j][i];
      if (j == i || factor == 0) continue;
      for (size_t k = 0; k < 2 * n; ++k) a[j][k] -= factor * a[i][k];
    }
  }
  for (size_t i = 0; i < n; ++i) a[i].erase(a[i].begin(), a[i].begin() + static_cast<int64_t>(n));
  return a;
}

struct Pruned {
  std::vector<double> w;
  std::vector<uint8_t> kept;
};

Pruned Prune(const OneShotOptions& options, const HostTensor& x, const HostTensor& w, int threads = 1) {
  kernels::Stream stream(threads);
  const HostTensor copy = w.Copy();
  Pruned pruned;
  EXPECT_OK(PruneMatrix(options, MomentsOf(x, options.method == Method::kSparseGpt), copy, &pruned.kept, stream));
  pruned.w = copy.ToDoubles();
  return pruned;
}

// sum over inputs and outputs of (x (w - q))^2.
double ErrorOf(const HostTensor& x, const HostTensor& w, const std::vector<double>& q) {
  const int64_t in = x.view().dim(1), out = w.view().dim(0);
  double error = 0;
  for (int64_t r = 0; r < x.view().dim(0); ++r) {
    for (int64_t o = 0; o < out; ++o) {
      double sum = 0;
      for (int64_t i = 0; i < in; ++i) {
        sum += x.as<float>()[r * in + i] * (w.as<float>()[o * in + i] - q[static_cast<size_t>(o * in + i)]);
      }
      error += sum * sum;
    }
  }
  return error;
}

// The optimal brain surgeon one variable after another, with the inverse of what is left of H computed afresh each
// time. A factor of H instead of its inverse, a missing damping, or errors not passed on to the next block differ.
std::vector<double> ReferenceSparseGpt(const OneShotOptions& options, const HostTensor& x, const HostTensor& w) {
  const auto in = static_cast<size_t>(x.view().dim(1));
  Matrix h(in, std::vector<double>(in));
  for (const std::vector<double>& row : Rows(x.ToDoubles(), x.view().dim(1))) {
    for (size_t i = 0; i < in; ++i) {
      for (size_t j = 0; j < in; ++j) h[i][j] += row[i] * row[j];
    }
  }
  double mean = 0;
  for (size_t i = 0; i < in; ++i) mean += h[i][i] / static_cast<double>(in);
  for (size_t i = 0; i < in; ++i) h[i][i] += options.damping * mean;

  std::vector<Matrix> inverses;  // of H without its first i rows and columns
  for (size_t i = 0; i < in; ++i) {
    Matrix rest(h.begin() + static_cast<int64_t>(i), h.end());
    for (auto& row : rest) row.erase(row.begin(), row.begin() + static_cast<int64_t>(i));
    inverses.push_back(Inverse(rest));
  }
  Matrix q = Rows(w.ToDoubles(), static_cast<int64_t>(in));
  std::vector<std::vector<bool>> kept(q.size(), std::vector<bool>(in, true));
  const auto choose = [&](size_t begin, size_t end, std::vector<size_t> rows, size_t count) {
    std::vector<std::pair<size_t, size_t>> order;
    for (const size_t row : rows) {
      for (size_t col = begin; col < end; ++col) order.emplace_back(row, col);
    }
    const auto score = [&](const std::pair<size_t, size_t>& at) {
      return q[at.first][at.second] * q[at.first][at.second] / inverses[at.second][0][0];
    };
    std::stable_sort(order.begin(), order.end(), [&](auto& a, auto& b) { return score(a) < score(b); });
    for (size_t i = 0; i < count; ++i) kept[order[i].first][order[i].second] = false;
  };
  std::vector<size_t> all(q.size());
  std::iota(all.begin(), all.end(), 0);
  const auto block = static_cast<size_t>(options.block);
  const auto pruned_until = [&](size_t col) {
    return static_cast<size_t>(static_cast<double>(q.size() * col) * options.sparsity + 1e-9);
  };
  for (size_t col = 0; col < in; ++col) {
    const size_t end = std::min(in, col + block);
    if (options.group == 0 && col % block == 0) choose(col, end, all, pruned_until(end) - pruned_until(col));
    if (options.group > 0 && col % static_cast<size_t>(options.group) == 0) {
      for (const size_t row : all) {
        choose(col, col + static_cast<size_t>(options.group), {row}, static_cast<size_t>(options.group) / 2);
      }
    }
    for (size_t row = 0; row < q.size(); ++row) {
      if (kept[row][col]) continue;
      const double error = q[row][col] / inverses[col][0][0];
      for (size_t i = col; i < in; ++i) q[row][i] -= error * inverses[col][0][i - col];
      q[row][col] = 0;
    }
  }
  std::vector<double> flat;
  for (const auto& row : q) flat.insert(flat.end(), row.begin(), row.end());
  return flat;
}

TEST(OneShotTest, SparseGptIsTheOptimalBrainSurgeon) {
  const HostTensor x = CorrelatedInputs(200, 24, 1);
  const HostTensor w = HostTensor::Normal(DType::kF32, {10, 24}, 2);
  for (OneShotOptions options :
       {OneShotOptions{.sparsity = 0.5, .block = 8}, OneShotOptions{.sparsity = 0.7, .block = 24},
        OneShotOptions{.sparsity = 0.35, .block = 10}, OneShotOptions{.group = 4, .block = 8},
        OneShotOptions{.group = 8, .block = 16, .damping = 0.1}}) {
    const Pruned pruned = Prune(options, x, w);
    EXPECT_THAT(pruned.w, AllNear(ReferenceSparseGpt(options, x, w), {.absolute = 1e-4}));
    for (size_t i = 0; i < pruned.w.size(); ++i) EXPECT_EQ(pruned.kept[i] == 0, pruned.w[i] == 0) << i;
  }
}

// |w| times the column's norm, row by row.
TEST(OneShotTest, WandaComparesInsideRows) {
  const HostTensor x = HostTensor::Of(DType::kF32, {2, 4}, {3, 0, 1, 2, 4, 1, 0, 0});  // norms 5, 1, 1, 2
  const HostTensor w = HostTensor::Of(DType::kF32, {2, 4}, {1, 4, -6, -2, 100, -900, 800, 1});
  const OneShotOptions options{.method = Method::kWanda, .sparsity = 0.5};
  EXPECT_EQ(Prune(options, x, w).w, (std::vector<double>{1, 0, -6, 0, 0, -900, 800, 0}));
  const OneShotOptions grouped{.method = Method::kWanda, .group = 4};
  EXPECT_EQ(Prune(grouped, x, w).w, (std::vector<double>{1, 0, -6, 0, 0, -900, 800, 0}));
  const OneShotOptions magnitude{.method = Method::kMagnitude, .sparsity = 0.5};
  EXPECT_EQ(Prune(magnitude, x, w).w, (std::vector<double>{0, 0, -6, 0, 100, -900, 800, 0}));
}

TEST(OneShotTest, CountsAreExact) {
  const HostTensor x = CorrelatedInputs(50, 30, 1);
  const HostTensor w = HostTensor::Filled(DType::kF32, {7, 30}, 0.5);  // nothing but ties for magnitude
  for (const double sparsity : {0.0, 0.1, 0.5, 0.9}) {
    for (const Method method : {Method::kMagnitude, Method::kWanda, Method::kSparseGpt}) {
      const Pruned pruned = Prune({.method = method, .sparsity = sparsity, .block = 8}, x, w);
      EXPECT_EQ(std::count(pruned.kept.begin(), pruned.kept.end(), 0),
                kernels::PrunedCount(7 * 30, kernels::PartsPerMillion(sparsity)));
    }
  }
}

// The order that both papers report, on inputs with correlated columns of different sizes.
TEST(OneShotTest, SparseGptLosesLessThanWandaThanMagnitude) {
  for (const uint64_t seed : {1, 2, 3}) {
    const HostTensor x = CorrelatedInputs(300, 48, 10 * seed);
    const HostTensor w = HostTensor::Normal(DType::kF32, {32, 48}, 10 * seed + 5);
    for (const int group : {0, 4}) {
      const auto error = [&](Method method) {
        return ErrorOf(x, w, Prune({.method = method, .sparsity = 0.5, .group = group, .block = 16}, x, w).w);
      };
      const double sparse_gpt = error(Method::kSparseGpt), wanda = error(Method::kWanda);
      EXPECT_LT(sparse_gpt, 0.5 * wanda) << seed;
      EXPECT_LT(wanda, 0.9 * error(Method::kMagnitude)) << seed;
    }
  }
}

TEST(OneShotTest, ColumnsWithoutInputBecomeZero) {
  HostTensor x = CorrelatedInputs(60, 12, 4);
  for (int64_t r = 0; r < 60; ++r) x.as<float>()[r * 12 + 5] = 0;
  const HostTensor w = HostTensor::Normal(DType::kF32, {4, 12}, 6);
  const Pruned pruned = Prune({.sparsity = 0.25, .block = 12}, x, w);
  for (size_t row = 0; row < 4; ++row) EXPECT_EQ(pruned.w[row * 12 + 5], 0);
}

TEST(OneShotTest, RefusesInputsThatAreNotFinite) {
  HostTensor x = CorrelatedInputs(60, 12, 4);
  x.as<float>()[7] = std::nanf("");
  const HostTensor w = HostTensor::Normal(DType::kF32, {4, 12}, 6);
  kernels::Stream stream(1);
  std::vector<uint8_t> kept;
  EXPECT_THAT(PruneMatrix({}, MomentsOf(x, true), w, &kept, stream),
              StatusIs(absl::StatusCode::kFailedPrecondition, ::testing::HasSubstr("not finite")));
}

TEST(OneShotTest, ThreadCountShowsInNoBit) {
  const HostTensor x = CorrelatedInputs(600, 40, 4);
  const HostTensor w = HostTensor::Normal(DType::kF32, {100, 40}, 6);
  for (const Method method : {Method::kWanda, Method::kSparseGpt}) {
    const Pruned one = Prune({.method = method, .block = 8}, x, w, 1);
    EXPECT_EQ(Prune({.method = method, .block = 8}, x, w, 3).w, one.w);
  }
}

}  // namespace
}  // namespace trainyard::prune
