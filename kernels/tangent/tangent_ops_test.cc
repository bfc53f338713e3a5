// Evidence 5 of influence-distillation.md, per op: the tangent is the central difference of the op's own primal in f64,
// with every input and parameter moving along its direction; and it is linear in the direction. A rule with a term left
// out (the gain's tangent, the row sum of the softmax, k.'s share of the scores) fails. And f32, on the device under
// test, is f64 up to its rounding.
#include "kernels/tangent/tangent_ops.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

constexpr double kStep = 1e-5;

using Numbers = std::vector<double>;

Numbers Normal(int64_t count, uint32_t tensor, uint32_t direction = 7) {
  Numbers out(static_cast<size_t>(count));
  FillDirection({.seed = 5, .direction = direction, .tensor = tensor}, 0, count, out.data());
  return out;
}

// Numbers of type T where the device under test can reach them.
template <typename T>
class Block {
 public:
  explicit Block(size_t count) : tensor_(DType::kU8, {static_cast<int64_t>(count * sizeof(T))}), count_(count) {}
  Block(const Numbers& values) : Block(values.size()) {  // NOLINT: reads as numbers
    for (size_t i = 0; i < count_; ++i) data()[i] = static_cast<T>(values[i]);
  }
  // For a kernel: does not wait for the device.
  T* data() const { return static_cast<T*>(tensor_.view().data()); }
  Numbers Read() const {
    TY_CHECK_OK(SynchronizeDevice());
    return Numbers(data(), data() + count_);
  }

 private:
  testing::HostTensor tensor_;
  size_t count_;
};

Numbers Joined(const Numbers& value, const std::vector<Numbers>& dots) {
  Numbers all = value;
  for (const Numbers& dot : dots) all.insert(all.end(), dot.begin(), dot.end());
  return all;
}

template <typename T, typename Op>
Numbers Apply(const Op& op, const std::vector<Numbers>& inputs, int64_t tangents, Stream& stream) {
  std::vector<Block<T>> blocks;
  for (const Numbers& input : inputs) blocks.emplace_back(input);
  return op(blocks, tangents, stream);
}

// op(inputs, tangents, stream), of several inputs, each (1 + tangents) parts of sizes[i] numbers, returns the Dual's
// data. It is a template over the numbers' type.
template <typename Op>
void CheckOp(const std::vector<int64_t>& sizes, const Op& op) {
  std::vector<Numbers> values, both, shifted_up, shifted_down;
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
    both.push_back(Joined(values[i], {a, b, mixed}));
    shifted_up.push_back(up);
    shifted_down.push_back(down);
  }
  Stream cpu(1);
  const Numbers result = Apply<double>(op, both, 3, cpu), plain = Apply<double>(op, values, 0, cpu);
  const Numbers up = Apply<double>(op, shifted_up, 0, cpu), down = Apply<double>(op, shifted_down, 0, cpu);
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

  testing::TestStream stream(1);
  const Numbers rounded = Apply<float>(op, both, 3, stream), rounded_plain = Apply<float>(op, values, 0, stream);
  ASSERT_EQ(rounded.size(), 4 * n);
  for (size_t i = 0; i < n; ++i) EXPECT_EQ(rounded[i], rounded_plain[i]);
  for (size_t part = 0; part < 4; ++part) {
    double squares = 0, worst = 0;
    for (size_t i = part * n; i < (part + 1) * n; ++i) {
      squares += result[i] * result[i];
      worst = std::max(worst, std::abs(rounded[i] - result[i]));
    }
    EXPECT_LT(worst, 2e-5 * std::sqrt(squares / static_cast<double>(n))) << "part " << part;
  }
}

template <typename T>
Dual<T> View(const Block<T>& data, int64_t tangents, int64_t rows, int64_t cols) {
  return {data.data(), tangents, rows, cols};
}

template <typename T>
using NumberOf = std::remove_pointer_t<decltype(std::declval<T>()[0].data())>;

TEST(TangentOpsTest, RmsNorm) {
  CheckOp({3 * 21, 21}, [](const auto& in, int64_t tangents, Stream& stream) {
    using T = NumberOf<decltype(in)>;
    const Block<T> y(static_cast<size_t>((1 + tangents) * 3 * 21));
    RmsNormTangent<T>({.x = View(in[0], tangents, 3, 21),
                       .w = in[1].data(),
                       .w_dots = in[1].data() + 21,
                       .y = View(y, tangents, 3, 21),
                       .eps = 1e-2},
                      stream);
    return y.Read();
  });
}

// Wider than a block of threads.
TEST(TangentOpsTest, RmsNormInPlaceEqualsOutOfPlace) {
  testing::TestStream stream(1);
  const Block<float> x = Normal(3 * 2 * 300, 1), y(3 * 2 * 300), w = Normal(300, 2), dots = Normal(2 * 300, 3);
  const Dual<float> view = View(x, 2, 2, 300);
  RmsNormTangent<float>({.x = view, .w = w.data(), .w_dots = dots.data(), .y = View(y, 2, 2, 300)}, stream);
  RmsNormTangent<float>({.x = view, .w = w.data(), .w_dots = dots.data(), .y = view}, stream);
  EXPECT_EQ(x.Read(), y.Read());
}

// One width takes vectors on a device, the other does not.
TEST(TangentOpsTest, Swiglu) {
  for (const int64_t width : {7, 8}) {
    CheckOp({4 * 2 * width}, [width](const auto& in, int64_t tangents, Stream& stream) {
      using T = NumberOf<decltype(in)>;
      const Block<T> y(static_cast<size_t>((1 + tangents) * 4 * width));
      SwigluTangent<T>(View(in[0], tangents, 4, 2 * width), View(y, tangents, 4, width), stream);
      return y.Read();
    });
  }
}

// With the weights' tangent in panels of different heights, as the network makes them.
TEST(TangentOpsTest, Linear) {
  for (const int64_t panel : {1, 3, 4, 8}) {
    CheckOp({5 * 6, 8 * 6, 8}, [panel](const auto& in, int64_t tangents, Stream& stream) {
      using T = NumberOf<decltype(in)>;
      const Block<T> y(static_cast<size_t>((1 + tangents) * 5 * 8)), product(static_cast<size_t>(5 * panel));
      const Dual<T> from = View(in[0], tangents, 5, 6), to = View(y, tangents, 5, 8);
      LinearTangent<T>({.x = from, .w = in[1].data(), .bias = in[2].data(), .bias_dots = in[2].data() + 8, .y = to},
                       stream);
      for (int64_t k = 0; k < tangents; ++k) {
        for (int64_t row = 0; row < 8; row += panel) {
          AddWeightTangent<T>({.x = from,
                               .panel = in[1].data() + 48 + k * 48 + row * 6,
                               .row_begin = row,
                               .count = std::min<int64_t>(panel, 8 - row),
                               .tangent = k,
                               .y = to,
                               .product = product.data()},
                              stream);
        }
      }
      return y.Read();
    });
  }
}

TEST(TangentOpsTest, Rope) {
  Numbers angles;
  for (int i = 0; i < 6 * 2; ++i) {
    angles.push_back(std::cos(0.3f * static_cast<float>(i)));
    angles.push_back(std::sin(0.3f * static_cast<float>(i)));
  }
  const Block<float> table = angles;
  CheckOp({6 * 16}, [&](const auto& in, int64_t tangents, Stream& stream) {
    using T = NumberOf<decltype(in)>;
    RopeTangent<T>({.qkv = View(in[0], tangents, 6, 16), .table = table.data(), .turned_heads = 3, .head_dim = 4},
                   stream);
    return in[0].Read();
  });
}

// More rows than one block of queries, grouped heads, and a map of heads that is not regular.
TEST(TangentOpsTest, Attention) {
  const std::vector<int32_t> map = {1, 1, 0, 1};
  for (const int32_t* kv_of_head : {static_cast<const int32_t*>(nullptr), map.data()}) {
    CheckOp({70 * 8 * 3}, [&](const auto& in, int64_t tangents, Stream& stream) {
      using T = NumberOf<decltype(in)>;
      const Block<T> o(static_cast<size_t>((1 + tangents) * 70 * 4 * 3));
      const Block<float> lse(4 * 70);
      AttentionTangent<T>({.qkv = View(in[0], tangents, 70, 24),
                           .o = View(o, tangents, 70, 12),
                           .q_heads = 4,
                           .kv_heads = 2,
                           .head_dim = 3,
                           .kv_of_head = kv_of_head,
                           .lse = lse.data()},
                          stream);
      return o.Read();
    });
  }
}

// Heads of more columns than a thread block of a device computes, and of the wider kind.
TEST(TangentOpsTest, AttentionOfWideHeads) {
  for (const int64_t head_dim : {80, 130}) {
    CheckOp({5 * 3 * head_dim}, [head_dim](const auto& in, int64_t tangents, Stream& stream) {
      using T = NumberOf<decltype(in)>;
      const Block<T> o(static_cast<size_t>((1 + tangents) * 5 * head_dim));
      const Block<float> lse(5);
      AttentionTangent<T>({.qkv = View(in[0], tangents, 5, 3 * head_dim),
                           .o = View(o, tangents, 5, head_dim),
                           .q_heads = 1,
                           .kv_heads = 1,
                           .head_dim = head_dim,
                           .lse = lse.data()},
                          stream);
      return o.Read();
    });
  }
}

TEST(TangentOpsTest, ResidualAddsTangents) {
  testing::TestStream stream(1);
  const Block<float> x = Normal(3 * 4, 1), y = Normal(3 * 4, 2);
  const Numbers before = y.Read(), added = x.Read();
  AddDual(View(x, 2, 2, 2), View(y, 2, 2, 2), stream);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(y.Read()[i], static_cast<float>(before[i]) + static_cast<float>(added[i]));
  }
}

// Rows of the table that begin at every place of a block of four random numbers, and narrower ones than a block.
TEST(TangentOpsTest, EmbeddingsTangentIsTheRowOfTheTablesDirection) {
  testing::TestStream stream(1);
  for (const int64_t cols : {3, 8, 9}) {
    const Block<float> table = Normal(10 * cols, 4), y(static_cast<size_t>(3 * 4 * cols));
    const testing::HostTensor tokens = testing::HostTensor::Of(DType::kI32, {4}, {9, 0, 9, 3});
    EmbeddingTangent<float>({.tokens = static_cast<const int32_t*>(tokens.view().data()),
                             .table = table.data(),
                             .key = {.seed = 1, .tensor = 6},
                             .y = View(y, 2, 4, cols)},
                            stream);
    const Numbers got = y.Read(), rows = table.Read();
    for (int64_t row = 0; row < 4; ++row) {
      const int64_t token = tokens.as<int32_t>()[row];
      for (uint32_t k = 0; k < 2; ++k) {
        Numbers whole(static_cast<size_t>(10 * cols));
        FillDirection({.seed = 1, .direction = k, .tensor = 6}, 0, 10 * cols, whole.data());
        for (int64_t c = 0; c < cols; ++c) {
          const auto from = static_cast<size_t>(token * cols + c);
          EXPECT_EQ(got[static_cast<size_t>(row * cols + c)], rows[from]);
          EXPECT_EQ(got[static_cast<size_t>(((1 + k) * 4 + row) * cols + c)], whole[from]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace trainyard::kernels
