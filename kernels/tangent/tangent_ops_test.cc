// Evidence 5 of influence-distillation.md, per op: the tangent is the central difference of the op's own primal in f64,
// with every input and parameter moving along its direction; and it is linear in the direction. A rule with a term left
// out (the gain's tangent, the row sum of the softmax, k.'s share of the scores) fails.
#include "kernels/tangent/tangent_ops.h"

#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace trainyard::kernels {
namespace {

constexpr double kStep = 1e-5;

using Numbers = std::vector<double>;

Numbers Normal(int64_t count, uint32_t tensor, uint32_t direction = 7) {
  Numbers out(static_cast<size_t>(count));
  FillDirection({.seed = 5, .direction = direction, .tensor = tensor}, 0, count, out.data());
  return out;
}

// An op as a function of several inputs, each (1 + tangents) parts of inputs[i] numbers; it returns the Dual's data.
using Op = std::function<Numbers(const std::vector<Numbers>& inputs, int64_t tangents)>;

Numbers Joined(const Numbers& value, const std::vector<Numbers>& dots) {
  Numbers all = value;
  for (const Numbers& dot : dots) all.insert(all.end(), dot.begin(), dot.end());
  return all;
}

void CheckOp(const std::vector<int64_t>& sizes, const Op& op) {
  std::vector<Numbers> values, first, second, both, shifted_up, shifted_down;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto tensor = static_cast<uint32_t>(i);
    values.push_back(Normal(sizes[i], tensor));
    const Numbers a = Normal(sizes[i], tensor, 8), b = Normal(sizes[i], tensor, 9);
    Numbers mixed(a.size()), up = values[i], down = values[i];
    for (size_t e = 0; e < a.size(); ++e) {
      mixed[e] = 2 * a[e] - b[e];
      up[e] += kStep * a[e];
      down[e] -= kStep * a[e];
    }
    first.push_back(a);
    second.push_back(b);
    both.push_back(Joined(values[i], {a, b, mixed}));
    shifted_up.push_back(up);
    shifted_down.push_back(down);
  }
  const Numbers result = op(both, 3), up = op(shifted_up, 0), down = op(shifted_down, 0), plain = op(values, 0);
  const size_t n = plain.size();
  ASSERT_EQ(result.size(), 4 * n);
  double error = 0, norm = 0, nonlinear = 0;
  for (size_t i = 0; i < n; ++i) {
    EXPECT_EQ(result[i], plain[i]);  // the primal does not depend on the tangents
    const double difference = (up[i] - down[i]) / (2 * kStep);
    error += std::pow(result[n + i] - difference, 2);
    norm += std::pow(difference, 2);
    nonlinear += std::pow(result[3 * n + i] - (2 * result[n + i] - result[2 * n + i]), 2);
  }
  ASSERT_GT(norm, 0);
  EXPECT_LT(std::sqrt(error / norm), 1e-6);
  EXPECT_LT(std::sqrt(nonlinear / norm), 1e-12);
}

Dual<double> View(Numbers& data, int64_t tangents, int64_t rows, int64_t cols) {
  return {data.data(), tangents, rows, cols};
}

Numbers Tail(const Numbers& all, int64_t part) {
  return {all.begin() + part, all.end()};
}

TEST(TangentOpsTest, RmsNorm) {
  CheckOp({3 * 21, 21}, [](const std::vector<Numbers>& in, int64_t tangents) {
    Numbers x = in[0], y(x.size());
    const Numbers dots = Tail(in[1], 21);
    RmsNormTangent<double>({.x = View(x, tangents, 3, 21),
                            .w = in[1].data(),
                            .w_dots = dots.data(),
                            .y = View(y, tangents, 3, 21),
                            .eps = 1e-2});
    return y;
  });
}

TEST(TangentOpsTest, RmsNormInPlaceEqualsOutOfPlace) {
  Numbers x = Normal(3 * 2 * 5, 1), y(x.size());
  const Numbers w = Normal(5, 2), dots = Normal(2 * 5, 3);
  const Dual<double> view = View(x, 2, 2, 5);
  RmsNormTangent<double>({.x = view, .w = w.data(), .w_dots = dots.data(), .y = View(y, 2, 2, 5)});
  RmsNormTangent<double>({.x = view, .w = w.data(), .w_dots = dots.data(), .y = view});
  EXPECT_EQ(x, y);
}

TEST(TangentOpsTest, Swiglu) {
  CheckOp({4 * 2 * 7}, [](const std::vector<Numbers>& in, int64_t tangents) {
    Numbers x = in[0], y(x.size() / 2);
    SwigluTangent<double>(View(x, tangents, 4, 14), View(y, tangents, 4, 7));
    return y;
  });
}

// With the weights' tangent in panels of different heights, as the network makes them.
TEST(TangentOpsTest, Linear) {
  for (const int64_t panel : {1, 3, 8}) {
    CheckOp({5 * 6, 8 * 6, 8}, [panel](const std::vector<Numbers>& in, int64_t tangents) {
      Numbers x = in[0], y(static_cast<size_t>((1 + tangents) * 5 * 8));
      const Numbers w_dots = Tail(in[1], 48), bias_dots = Tail(in[2], 8);
      const Dual<double> from = View(x, tangents, 5, 6), to = View(y, tangents, 5, 8);
      LinearTangent<double>(
          {.x = from, .w = in[1].data(), .bias = in[2].data(), .bias_dots = bias_dots.data(), .y = to});
      for (int64_t k = 0; k < tangents; ++k) {
        for (int64_t row = 0; row < 8; row += panel) {
          AddWeightTangent(from, w_dots.data() + k * 48 + row * 6, row, std::min<int64_t>(panel, 8 - row), k, to);
        }
      }
      return y;
    });
  }
}

TEST(TangentOpsTest, Rope) {
  std::vector<float> table;
  for (int i = 0; i < 6 * 2; ++i) {
    table.push_back(std::cos(0.3f * static_cast<float>(i)));
    table.push_back(std::sin(0.3f * static_cast<float>(i)));
  }
  CheckOp({6 * 16}, [&](const std::vector<Numbers>& in, int64_t tangents) {
    Numbers x = in[0];
    RopeTangent<double>({.qkv = View(x, tangents, 6, 16), .table = table.data(), .turned_heads = 3, .head_dim = 4});
    return x;
  });
}

// More rows than one block of queries, grouped heads, and a map of heads that is not regular.
TEST(TangentOpsTest, Attention) {
  const std::vector<int32_t> map = {1, 1, 0, 1};
  for (const int32_t* kv_of_head : {static_cast<const int32_t*>(nullptr), map.data()}) {
    CheckOp({70 * 8 * 3}, [&](const std::vector<Numbers>& in, int64_t tangents) {
      Numbers x = in[0], o(static_cast<size_t>((1 + tangents) * 70 * 4 * 3));
      AttentionTangent<double>({.qkv = View(x, tangents, 70, 24),
                                .o = View(o, tangents, 70, 12),
                                .q_heads = 4,
                                .kv_heads = 2,
                                .head_dim = 3,
                                .kv_of_head = kv_of_head});
      return o;
    });
  }
}

TEST(TangentOpsTest, ResidualAddsTangents) {
  Numbers x = Normal(3 * 4, 1), y = Normal(3 * 4, 2);
  const Numbers before = y;
  AddDual(View(x, 2, 2, 2), View(y, 2, 2, 2));
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], before[i] + x[i]);
}

TEST(TangentOpsTest, EmbeddingsTangentIsTheRowOfTheTablesDirection) {
  const Numbers table = Normal(10 * 3, 4);
  const std::vector<int32_t> tokens = {9, 0, 9};
  Numbers y(3 * 3 * 3);
  EmbeddingTangent<double>(
      {.tokens = tokens.data(), .table = table.data(), .key = {.seed = 1, .tensor = 6}, .y = View(y, 2, 3, 3)});
  for (size_t row = 0; row < 3; ++row) {
    for (uint32_t k = 0; k < 2; ++k) {
      Numbers whole(30);
      FillDirection({.seed = 1, .direction = k, .tensor = 6}, 0, 30, whole.data());
      for (size_t c = 0; c < 3; ++c) {
        EXPECT_EQ(y[row * 3 + c], table[static_cast<size_t>(tokens[row]) * 3 + c]);
        EXPECT_EQ(y[(1 + k) * 9 + row * 3 + c], whole[static_cast<size_t>(tokens[row]) * 3 + c]);
      }
    }
  }
}

TEST(RandomDirectionTest, EntriesDoNotDependOnHowTheyAreAskedFor) {
  Numbers whole(50);
  FillDirection({.seed = 2, .direction = 1, .tensor = 3}, 0, 50, whole.data());
  for (const int64_t begin : {0, 1, 2, 3, 7}) {
    std::vector<float> part(11);
    FillDirection({.seed = 2, .direction = 1, .tensor = 3}, begin, 11, part.data());
    for (size_t i = 0; i < part.size(); ++i) EXPECT_EQ(part[i], whole[static_cast<size_t>(begin) + i]);
  }
}

// 40,000 entries: the mean is within 5 standard errors, as is the variance; directions are uncorrelated.
TEST(RandomDirectionTest, EntriesAreStandardNormalAndIndependent) {
  constexpr double kCount = 40'000;
  const Numbers a = Normal(40'000, 1, 0), b = Normal(40'000, 1, 1);
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
