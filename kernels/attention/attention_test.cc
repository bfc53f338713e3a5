#include "kernels/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/attention/attention_reference.h"
#include "kernels/quant/abs_max.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/finite_difference.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::OpCase;
using testing::OpCases;
using testing::Tolerance;
using testing::ToleranceFor;
using testing::ToleranceForSum;

AttentionShape ShapeOf(const OpCase& c) {
  return {.batch = c.dim(0), .seq = c.dim(1), .q_heads = c.dim(2), .kv_heads = c.dim(3), .head_dim = c.dim(4)};
}

double DefaultScale(const AttentionShape& shape) {
  return 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
}

// What the device under test may add to an error: tensor cores take weights and gradients of scores as bf16, each off
// by up to 2^-9 of itself. The errors of a sum mostly cancel, so it stays far below that share of the largest result.
Tolerance WithRoundedWeights(Tolerance tolerance, DType dtype, const std::vector<double>& expected) {
  if (testing::DeviceUnderTest() == Device::kCpu || dtype == DType::kF32) return tolerance;
  double largest = 0;
  for (double value : expected) largest = std::max(largest, std::abs(value));
  tolerance.absolute += largest / 256;
  return tolerance;
}

struct Tensors {
  AttentionShape shape;
  HostTensor qkv, o, lse, dout, dqkv;
  float scale = 0.0f;

  Tensors(const AttentionShape& shape_in, DType dtype)
      : shape(shape_in),
        qkv(HostTensor::Normal(dtype, {shape.batch, shape.seq, shape.packed_width()}, 1)),
        o(HostTensor::Filled(dtype, {shape.batch, shape.seq, shape.q_heads * shape.head_dim}, 77)),
        lse(HostTensor::Filled(DType::kF32, {shape.batch, shape.q_heads, shape.seq}, 77)),
        dout(HostTensor::Normal(dtype, {shape.batch, shape.seq, shape.q_heads * shape.head_dim}, 2)),
        dqkv(HostTensor::Filled(dtype, {shape.batch, shape.seq, shape.packed_width()}, 77)) {}

  void Forward(Stream& stream) {
    HostTensor workspace(DType::kU8, {AttentionForwardWorkspaceBytes(shape, qkv.view().dtype(), stream.threads())});
    AttentionForward({.shape = shape, .qkv = qkv, .o = o, .lse = lse, .scale = scale, .workspace = workspace}, stream);
  }
  void Backward(Stream& stream) {
    HostTensor workspace(DType::kU8, {AttentionBackwardWorkspaceBytes(shape, qkv.view().dtype(), stream.threads())});
    AttentionBackward({.shape = shape,
                       .qkv = qkv,
                       .o = o,
                       .lse = lse,
                       .dout = dout,
                       .dqkv = dqkv,
                       .scale = scale,
                       .workspace = workspace},
                      stream);
  }
};

class AttentionTest : public ::testing::TestWithParam<OpCase> {
 protected:
  AttentionShape shape_ = ShapeOf(GetParam());
  DType dtype_ = GetParam().dtype;
  testing::TestStream stream_{1};
};

TEST_P(AttentionTest, ForwardMatchesDoubleReference) {
  Tensors x(shape_, dtype_);
  x.Forward(stream_);
  const testing::AttentionReference expected =
      testing::ReferenceAttention(shape_, x.qkv.ToDoubles(), DefaultScale(shape_));
  EXPECT_THAT(x.o.ToDoubles(), AllNear(expected.o, WithRoundedWeights(ToleranceFor(dtype_), dtype_, expected.o)));
  EXPECT_THAT(x.lse.ToDoubles(), AllNear(expected.lse, ToleranceFor(DType::kF32)));
}

TEST_P(AttentionTest, BackwardMatchesDoubleReference) {
  Tensors x(shape_, dtype_);
  x.Forward(stream_);
  x.Backward(stream_);
  const std::vector<double> expected = testing::ReferenceAttentionGradient(shape_, x.qkv.ToDoubles(), x.o.ToDoubles(),
                                                                           x.dout.ToDoubles(), DefaultScale(shape_));
  // The gradient of a key sums over its later queries, in every head of the group.
  const Tolerance tolerance = ToleranceForSum(dtype_, shape_.seq * shape_.group());
  EXPECT_THAT(x.dqkv.ToDoubles(), AllNear(expected, WithRoundedWeights(tolerance, dtype_, expected)));
}

TEST_P(AttentionTest, AmaxIsThatOfTheOutputAndChangesNoBit) {
  Tensors x(shape_, dtype_), plain(shape_, dtype_);
  plain.Forward(stream_);
  const HostTensor amax = HostTensor::Filled(DType::kF32, {1}, 1e9), expected(DType::kF32, {1});
  const HostTensor workspace(DType::kU8, {AttentionForwardWorkspaceBytes(shape_, dtype_, stream_.threads())});
  AttentionForward({.shape = shape_, .qkv = x.qkv, .o = x.o, .lse = x.lse, .workspace = workspace, .amax = amax},
                   stream_);
  EXPECT_EQ(x.o.Bytes(), plain.o.Bytes());
  AbsMax({.x = x.o, .y = expected}, stream_);
  EXPECT_EQ(amax.Bytes(), expected.Bytes());
}

TEST_P(AttentionTest, ThreadCountShowsInNoBit) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    Tensors x(shape_, dtype_);
    x.Forward(stream);
    x.Backward(stream);
    std::vector<uint8_t> bytes = x.o.Bytes();
    for (const HostTensor* tensor : {&x.lse, &x.dqkv}) {
      const std::vector<uint8_t> more = tensor->Bytes();
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    return bytes;
  });
}

// A head_dim beyond 128 (columns in more than one part on a CUDA device) and two that tensor cores do not take. One
// token; odd lengths; one less, equal and one more than a block of queries (64) and of keys (256); groups of 1 to
// 8; head_dim no multiple of a vector.
INSTANTIATE_TEST_SUITE_P(All, AttentionTest,
                         ::testing::ValuesIn(OpCases({{1, 1, 1, 1, 16},
                                                      {2, 1, 4, 2, 16},
                                                      {1, 5, 2, 2, 7},
                                                      {1, 17, 3, 1, 1},
                                                      {2, 63, 2, 2, 48},
                                                      {1, 64, 3, 3, 64},
                                                      {2, 65, 8, 1, 16},
                                                      {2, 33, 6, 3, 128},
                                                      {1, 129, 8, 8, 24},
                                                      {1, 70, 2, 1, 136},
                                                      {1, 130, 4, 2, 20},
                                                      {1, 40, 1, 1, 260},
                                                      {1, 256, 2, 1, 32},
                                                      {1, 257, 2, 1, 80},
                                                      {1, 300, 4, 2, 64},
                                                      {1, 577, 1, 1, 96}})),
                         testing::OpCaseName);

// Groups that pruning has left ragged: darwinlm.md, section 2.6.
struct RaggedCase {
  const char* name;
  int64_t kv_heads;
  std::vector<int32_t> kv_of_head;
};

class RaggedAttentionTest : public ::testing::TestWithParam<std::tuple<RaggedCase, DType>> {
 protected:
  AttentionShape Shape(int64_t batch, int64_t seq, int64_t head_dim) const {
    return {.batch = batch,
            .seq = seq,
            .q_heads = static_cast<int64_t>(case_.kv_of_head.size()),
            .kv_heads = case_.kv_heads,
            .head_dim = head_dim,
            .kv_of_head = case_.kv_of_head.data()};
  }
  RaggedCase case_ = std::get<0>(GetParam());
  DType dtype_ = std::get<1>(GetParam());
};

TEST_P(RaggedAttentionTest, MatchesDoubleReferenceForwardAndBackward) {
  for (const AttentionShape& shape : {Shape(2, 33, 16), Shape(1, 300, 24)}) {
    testing::TestStream stream(2);
    Tensors x(shape, dtype_);
    x.Forward(stream);
    const testing::AttentionReference expected =
        testing::ReferenceAttention(shape, x.qkv.ToDoubles(), DefaultScale(shape));
    EXPECT_THAT(x.o.ToDoubles(), AllNear(expected.o, WithRoundedWeights(ToleranceFor(dtype_), dtype_, expected.o)));
    EXPECT_THAT(x.lse.ToDoubles(), AllNear(expected.lse, ToleranceFor(DType::kF32)));
    x.Backward(stream);
    const std::vector<double> gradient = testing::ReferenceAttentionGradient(shape, x.qkv.ToDoubles(), x.o.ToDoubles(),
                                                                             x.dout.ToDoubles(), DefaultScale(shape));
    const Tolerance tolerance = ToleranceForSum(dtype_, shape.seq * shape.q_heads);
    EXPECT_THAT(x.dqkv.ToDoubles(), AllNear(gradient, WithRoundedWeights(tolerance, dtype_, gradient)));
  }
}

TEST_P(RaggedAttentionTest, HeadsWithoutReadersGetZeroGradientsExactly) {
  const AttentionShape shape = Shape(2, 70, 8);
  testing::TestStream stream(1);
  Tensors x(shape, dtype_);
  x.Forward(stream);
  x.Backward(stream);
  const std::vector<double> gradient = x.dqkv.ToDoubles();
  for (int64_t kv = 0; kv < shape.kv_heads; ++kv) {
    const bool has_reader = std::count(case_.kv_of_head.begin(), case_.kv_of_head.end(), kv) > 0;
    for (const int64_t head : {shape.q_heads + kv, shape.q_heads + shape.kv_heads + kv}) {
      for (int64_t token = 0; token < shape.batch * shape.seq; ++token) {
        double sum = 0;
        for (int64_t c = 0; c < 8; ++c) {
          sum += std::abs(gradient[static_cast<size_t>(token * shape.packed_width() + head * 8 + c)]);
        }
        ASSERT_EQ(sum > 0, has_reader) << "head " << head << " of token " << token;
      }
    }
  }
}

TEST_P(RaggedAttentionTest, ThreadCountShowsInNoBit) {
  const AttentionShape shape = Shape(2, 130, 16);
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    Tensors x(shape, dtype_);
    x.Forward(stream);
    x.Backward(stream);
    std::vector<uint8_t> bytes = x.o.Bytes();
    const std::vector<uint8_t> more = x.dqkv.Bytes();
    bytes.insert(bytes.end(), more.begin(), more.end());
    return bytes;
  });
}

TEST_P(RaggedAttentionTest, DecodingTheLastTokenMatchesTheReference) {
  const AttentionShape shape = Shape(2, 67, 16);
  testing::TestStream stream(2);
  Tensors x(shape, dtype_);
  const testing::AttentionReference expected =
      testing::ReferenceAttention(shape, x.qkv.ToDoubles(), DefaultScale(shape));
  const HostTensor k(dtype_, {2, 80, shape.kv_heads, 16}), v(dtype_, {2, 80, shape.kv_heads, 16});
  KvCacheAppend({.shape = shape, .qkv = x.qkv, .k_cache = k, .v_cache = v, .position = 0}, stream);
  const std::vector<double> qkv = x.qkv.ToDoubles();
  const int64_t width = shape.packed_width(), o_width = shape.q_heads * 16;
  std::vector<double> rows, expected_rows;
  for (int64_t b = 1; b <= 2; ++b) {
    rows.insert(rows.end(), qkv.begin() + (b * 67 - 1) * width, qkv.begin() + b * 67 * width);
    expected_rows.insert(expected_rows.end(), expected.o.begin() + (b * 67 - 1) * o_width,
                         expected.o.begin() + b * 67 * o_width);
  }
  HostTensor o = HostTensor::Filled(dtype_, {2, o_width}, 77);
  AttentionDecode(
      {.shape = shape, .q = HostTensor::Of(dtype_, {2, width}, rows), .k_cache = k, .v_cache = v, .length = 67, .o = o},
      stream);
  EXPECT_THAT(o.ToDoubles(), AllNear(expected_rows, ToleranceFor(dtype_)));
}

// One group longer than another; no reader of the first, a middle and the last KV head; more KV heads than readers; out
// of order.
INSTANTIATE_TEST_SUITE_P(
    All, RaggedAttentionTest,
    ::testing::Combine(::testing::Values(RaggedCase{"Longer", 2, {0, 0, 0, 1}}, RaggedCase{"NoFirst", 3, {1, 1, 2}},
                                         RaggedCase{"NoMiddle", 3, {0, 2, 2}}, RaggedCase{"NoLast", 3, {0, 0, 1, 1}},
                                         RaggedCase{"OneReader", 4, {2}}, RaggedCase{"OutOfOrder", 2, {1, 0, 1, 1, 0}}),
                       ::testing::Values(DType::kF32, DType::kBF16)),
    [](const auto& info) { return std::get<0>(info.param).name + std::string(Name(std::get<1>(info.param))); });

TEST(RaggedAttention, ARegularMapGivesTheBitsOfNoMap) {
  const std::vector<int32_t> map = {0, 0, 0, 1, 1, 1};
  const AttentionShape plain{.batch = 2, .seq = 150, .q_heads = 6, .kv_heads = 2, .head_dim = 16};
  AttentionShape mapped = plain;
  mapped.kv_of_head = map.data();
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    testing::TestStream stream(2);
    Tensors a(plain, dtype), b(mapped, dtype);
    for (Tensors* x : {&a, &b}) {
      x->Forward(stream);
      x->Backward(stream);
    }
    EXPECT_EQ(a.o.Bytes(), b.o.Bytes());
    EXPECT_EQ(a.lse.Bytes(), b.lse.Bytes());
    EXPECT_EQ(a.dqkv.Bytes(), b.dqkv.Bytes());
  }
}

TEST(AttentionGradient, MatchesFiniteDifferences) {
  const std::vector<int32_t> ragged = {2, 0, 2};
  for (const AttentionShape& shape :
       {AttentionShape{2, 4, 2, 1, 3}, AttentionShape{1, 6, 3, 3, 4}, AttentionShape{2, 5, 3, 3, 3, ragged.data()}}) {
    testing::TestStream stream(1);
    Tensors x(shape, DType::kF32);
    x.scale = 0.7f;
    x.Forward(stream);
    x.Backward(stream);
    std::vector<double> qkv = x.qkv.ToDoubles();
    const std::vector<double> dout = x.dout.ToDoubles();
    const double scale = static_cast<double>(0.7f);
    const std::vector<double> expected = testing::FiniteDifferences(
        qkv, [&] { return testing::Dot(dout, testing::ReferenceAttention(shape, qkv, scale).o); });
    EXPECT_THAT(x.dqkv.ToDoubles(), AllNear(expected, ToleranceForSum(DType::kF32, 16)));
  }
}

// Copies rows [begin, end) of tokens of a (1, T, width) tensor.
std::vector<double> Tokens(const HostTensor& x, int64_t begin, int64_t end) {
  const std::vector<double> all = x.ToDoubles();
  const int64_t width = x.view().dim(2);
  return {all.begin() + begin * width, all.begin() + end * width};
}

// In the first block of queries, in a later one, across the border of a block of keys.
TEST(AttentionCausality, NoOutputKnowsLaterTokens) {
  const AttentionShape shape{1, 300, 4, 2, 16};
  for (int64_t changed : {1, 63, 64, 200, 256, 299}) {
    testing::TestStream stream(2);
    Tensors x(shape, DType::kF32);
    x.Forward(stream);
    const std::vector<double> before = Tokens(x.o, 0, changed);
    const std::vector<double> own = Tokens(x.o, changed, changed + 1);
    float* row = x.qkv.as<float>() + changed * shape.packed_width();
    for (int64_t i = 0; i < (300 - changed) * shape.packed_width(); ++i) row[i] = 3.0f - row[i];
    x.Forward(stream);
    EXPECT_TRUE(Tokens(x.o, 0, changed) == before) << "changed from token " << changed;
    EXPECT_FALSE(Tokens(x.o, changed, changed + 1) == own) << "changed from token " << changed;
  }
}

// The mirror image: the gradients of a token know only the outputs from it on.
TEST(AttentionCausality, NoGradientKnowsEarlierOutputs) {
  const AttentionShape shape{1, 300, 4, 2, 16};
  for (int64_t changed : {1, 63, 64, 200, 256}) {
    testing::TestStream stream(2);
    Tensors x(shape, DType::kF32);
    x.Forward(stream);
    x.Backward(stream);
    const std::vector<double> after = Tokens(x.dqkv, changed, 300);
    float* d = x.dout.as<float>();
    for (int64_t i = 0; i < changed * shape.q_heads * shape.head_dim; ++i) d[i] = 3.0f - d[i];
    x.Backward(stream);
    EXPECT_TRUE(Tokens(x.dqkv, changed, 300) == after) << "changed up to token " << changed;
  }
}

// exp of such scores overflows; with the maximum taken out all weights of a row are equal and o is a running mean.
TEST(AttentionScores, HugeOnesDoNotOverflow) {
  const AttentionShape shape{1, 100, 1, 1, 8};
  testing::TestStream stream(1);
  Tensors x(shape, DType::kF32);
  std::vector<double> expected;
  double sum = 0;
  for (int64_t t = 0; t < shape.seq; ++t) {
    float* row = x.qkv.as<float>() + t * shape.packed_width();
    for (int64_t c = 0; c < 16; ++c) row[c] = 1e4f;
    for (int64_t c = 16; c < 24; ++c) row[c] = static_cast<float>(t % 7);
    sum += static_cast<double>(t % 7);
    expected.insert(expected.end(), 8, sum / static_cast<double>(t + 1));
  }
  x.Forward(stream);
  EXPECT_THAT(x.o.ToDoubles(), AllNear(expected, ToleranceFor(DType::kF32)));
}

// A running maximum that grows from block to block: earlier sums are rescaled, not lost or counted twice.
TEST(AttentionScores, GrowingMaximumRescalesEarlierBlocks) {
  const AttentionShape shape{1, 600, 1, 1, 4};
  testing::TestStream stream(1);
  Tensors x(shape, DType::kF32);
  x.scale = 1.0f;
  for (int64_t t = 0; t < shape.seq; ++t) {
    float* row = x.qkv.as<float>() + t * shape.packed_width();
    row[0] = 1.0f;  // q . k = k[0]
    row[4] = static_cast<float>(t) / 64.0f;
    for (int64_t c : {1, 2, 3, 5, 6, 7}) row[c] = 0.0f;
  }
  x.Forward(stream);
  const testing::AttentionReference expected = testing::ReferenceAttention(shape, x.qkv.ToDoubles(), 1.0);
  EXPECT_THAT(x.o.ToDoubles(), AllNear(expected.o, ToleranceFor(DType::kF32)));
}

class AttentionDecodeTest : public ::testing::TestWithParam<OpCase> {};

// Appends a prompt, then tokens one by one; each new output is the forward's at that position. What lies in the cache
// behind `length` is NaN and must not be read.
TEST_P(AttentionDecodeTest, StepsMatchReferenceOfWholeSequence) {
  const AttentionShape shape = ShapeOf(GetParam());
  const DType dtype = GetParam().dtype;
  const int64_t capacity = shape.seq + 3;
  const int64_t prompt = shape.seq / 2;
  const int64_t width = shape.packed_width();
  const int64_t o_width = shape.q_heads * shape.head_dim;
  testing::TestStream stream(2);
  Tensors x(shape, dtype);
  const testing::AttentionReference expected =
      testing::ReferenceAttention(shape, x.qkv.ToDoubles(), DefaultScale(shape));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  HostTensor k = HostTensor::Filled(dtype, {shape.batch, capacity, shape.kv_heads, shape.head_dim}, nan);
  HostTensor v = HostTensor::Filled(dtype, {shape.batch, capacity, shape.kv_heads, shape.head_dim}, nan);

  // Tokens [begin, begin + count) of every sequence, packed.
  const std::vector<double> qkv = x.qkv.ToDoubles();
  const auto take = [&](int64_t begin, int64_t count) {
    std::vector<double> rows;
    for (int64_t b = 0; b < shape.batch; ++b) {
      const auto first = qkv.begin() + (b * shape.seq + begin) * width;
      rows.insert(rows.end(), first, first + count * width);
    }
    return HostTensor::Of(dtype, {shape.batch * count, width}, rows);
  };
  AttentionShape part = shape;
  part.seq = prompt;
  KvCacheAppend({.shape = part, .qkv = take(0, prompt), .k_cache = k, .v_cache = v, .position = 0}, stream);
  part.seq = 1;
  for (int64_t t = prompt; t < shape.seq; ++t) {
    const HostTensor row = take(t, 1);
    KvCacheAppend({.shape = part, .qkv = row, .k_cache = k, .v_cache = v, .position = t}, stream);
    HostTensor o = HostTensor::Filled(dtype, {shape.batch, o_width}, 77);
    AttentionDecode({.shape = part, .q = row, .k_cache = k, .v_cache = v, .length = t + 1, .o = o}, stream);
    std::vector<double> expected_row;
    for (int64_t b = 0; b < shape.batch; ++b) {
      const auto first = expected.o.begin() + (b * shape.seq + t) * o_width;
      expected_row.insert(expected_row.end(), first, first + o_width);
    }
    ASSERT_THAT(o.ToDoubles(), AllNear(expected_row, ToleranceFor(dtype))) << "token " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, AttentionDecodeTest,
    ::testing::ValuesIn(
        OpCases({{1, 1, 1, 1, 16}, {2, 5, 4, 2, 7}, {1, 67, 8, 1, 24}, {2, 130, 2, 2, 64}, {1, 40, 6, 3, 128}})),
    testing::OpCaseName);

// Queries alone, (B, Hq * HS), give what packed rows give.
TEST(AttentionDecode, TakesUnpackedQueries) {
  const AttentionShape shape{2, 1, 4, 2, 8};
  testing::TestStream stream(1);
  const HostTensor k = HostTensor::Normal(DType::kF32, {2, 9, 2, 8}, 1);
  const HostTensor v = HostTensor::Normal(DType::kF32, {2, 9, 2, 8}, 2);
  const HostTensor packed = HostTensor::Normal(DType::kF32, {2, 64}, 3);
  const std::vector<double> all = packed.ToDoubles();
  std::vector<double> q(all.begin(), all.begin() + 32);
  q.insert(q.end(), all.begin() + 64, all.begin() + 96);
  HostTensor o_packed(DType::kF32, {2, 32});
  HostTensor o(DType::kF32, {2, 32});
  AttentionDecode({.shape = shape, .q = packed, .k_cache = k, .v_cache = v, .length = 7, .o = o_packed}, stream);
  AttentionDecode(
      {.shape = shape, .q = HostTensor::Of(DType::kF32, {2, 32}, q), .k_cache = k, .v_cache = v, .length = 7, .o = o},
      stream);
  EXPECT_EQ(o.ToDoubles(), o_packed.ToDoubles());
}

}  // namespace
}  // namespace trainyard::kernels
