#include "kernels/pointwise/rope.h"

#include <cmath>

#include "gtest/gtest.h"
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
using Values = std::vector<double>;

constexpr double kTheta = 10000;
constexpr int64_t kOffset = 3;

// What the pass that `amax` saves finds.
std::vector<uint8_t> AmaxBytes(const HostTensor& x, Stream& stream) {
  const HostTensor amax(DType::kF32, {1});
  AbsMax({.x = x, .y = amax}, stream);
  return amax.Bytes();
}

// Shape: batch, seq, q heads, kv heads, head_dim.
class RopeTest : public ::testing::TestWithParam<OpCase> {
 protected:
  RopeTest() { RopeTable({.table = table_, .theta = kTheta, .head_dim = head_dim_}, stream_); }

  Values Forward(const Values& qkv) const {
    Values out = qkv;
    const int64_t half = head_dim_ / 2;
    for (int64_t token = 0; token < batch_ * seq_; ++token) {
      for (int64_t head = 0; head < q_heads_ + kv_heads_; ++head) {
        for (int64_t i = 0; i < half; ++i) {
          const double angle = static_cast<double>(token % seq_ + kOffset) *
                               std::pow(kTheta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim_));
          const size_t first = static_cast<size_t>(token * width_ + head * head_dim_ + i);
          const size_t second = first + static_cast<size_t>(half);
          out[first] = qkv[first] * std::cos(angle) - qkv[second] * std::sin(angle);
          out[second] = qkv[second] * std::cos(angle) + qkv[first] * std::sin(angle);
        }
      }
    }
    return out;
  }

  RopeArgs Args(const HostTensor& qkv) const {
    return {.qkv = qkv,
            .table = table_,
            .batch = batch_,
            .q_heads = q_heads_,
            .kv_heads = kv_heads_,
            .head_dim = head_dim_,
            .position_offset = kOffset};
  }

  const DType dtype_ = GetParam().dtype;
  const int64_t batch_ = GetParam().shape[0];
  const int64_t seq_ = GetParam().shape[1];
  const int64_t q_heads_ = GetParam().shape[2];
  const int64_t kv_heads_ = GetParam().shape[3];
  const int64_t head_dim_ = GetParam().shape.at(4);
  const int64_t width_ = (q_heads_ + 2 * kv_heads_) * head_dim_;
  const HostTensor table_{DType::kF32, {seq_ + kOffset, head_dim_ / 2, 2}};
  const HostTensor qkv_ = HostTensor::Normal(dtype_, {batch_ * seq_, width_}, 1);
  testing::TestStream stream_{2};
};

TEST_P(RopeTest, ForwardMatchesDoubleReference) {
  const HostTensor qkv = qkv_.Copy();
  RopeForward(Args(qkv), stream_);
  EXPECT_THAT(qkv.ToDoubles(), AllNear(Forward(qkv_.ToDoubles()), testing::ToleranceFor(dtype_)));
}

TEST_P(RopeTest, BackwardMatchesFiniteDifferences) {
  const HostTensor gradient = qkv_.Copy();
  RopeBackward(Args(gradient), stream_);
  Values x(static_cast<size_t>(qkv_.view().size()), 0.25);
  const Values dy = qkv_.ToDoubles();
  const Values expected = testing::FiniteDifferences(x, [&] { return testing::Dot(dy, Forward(x)); });
  EXPECT_THAT(gradient.ToDoubles(), AllNear(expected, testing::ToleranceFor(dtype_)));
}

// Once as it is, and once with the largest element among the v heads, which are not turned.
TEST_P(RopeTest, AmaxIsThatOfTheWholeGradientAndChangesNoBit) {
  for (const bool of_v_head : {false, true}) {
    const HostTensor plain = qkv_.Copy();
    if (of_v_head) {
      const int64_t last = plain.view().size() - 1;
      if (dtype_ == DType::kF32) plain.as<float>()[last] = -100;
      if (dtype_ == DType::kBF16) plain.as<BFloat16>()[last] = FromFloat<BFloat16>(-100);
    }
    const HostTensor gradient = plain.Copy();
    const HostTensor amax = HostTensor::Filled(DType::kF32, {1}, 1e9);
    RopeBackward(Args(plain), stream_);
    RopeArgs args = Args(gradient);
    args.amax = amax;
    RopeBackward(args, stream_);
    EXPECT_EQ(gradient.Bytes(), plain.Bytes());
    EXPECT_EQ(amax.Bytes(), AmaxBytes(gradient, stream_));
    if (of_v_head) {
      EXPECT_EQ(amax.ToDoubles()[0], 100);
    }
  }
}

TEST_P(RopeTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor qkv = qkv_.Copy();
    RopeForward(Args(qkv), stream);
    return qkv.Bytes();
  });
}

// Of 32: whole vectors, and a number of heads that no group of heads divides.
INSTANTIATE_TEST_SUITE_P(All, RopeTest,
                         ::testing::ValuesIn(testing::OpCases(
                             {{1, 1, 1, 1, 2}, {2, 5, 2, 1, 6}, {1, 40, 3, 3, 4}, {3, 1, 4, 2, 34}, {2, 3, 5, 2, 32}})),
                         [](const auto& info) {
                           std::string name(Name(info.param.dtype));
                           for (int64_t extent : info.param.shape) name += "_" + std::to_string(extent);
                           return name;
                         });

// transformers' Llama 3 rule at head_dim 128, theta 500000, factor 8, original length 8192: pair 0 turns 1303 times in
// that length and is kept; pair 63 turns 0.0032 times and is slowed 8 times; pair 32 (turns 1.84) lies between:
// smooth = (1.84 - 1) / 3.
TEST(RopeTableTest, Llama3ScalingKeepsFastSlowsSlowAndBlendsBetween) {
  testing::TestStream stream(1);
  const HostTensor table(DType::kF32, {2, 64, 2});
  RopeTable({.table = table, .theta = 500000, .head_dim = 128, .scaling = {.factor = 8}}, stream);
  const Values values = table.ToDoubles();
  const auto angle = [&](size_t i) { return std::atan2(values[(64 + i) * 2 + 1], values[(64 + i) * 2]); };
  EXPECT_NEAR(angle(0), 1.0, 1e-6);
  const double slowest = std::pow(500000.0, -126.0 / 128);
  EXPECT_NEAR(angle(63), slowest / 8, 1e-6 * slowest);
  const double middle = std::pow(500000.0, -0.5);
  const double smooth = (8192 * middle / (2 * M_PI) - 1) / 3;
  EXPECT_GT(smooth, 0.2);
  EXPECT_LT(smooth, 0.4);
  EXPECT_NEAR(angle(32), middle * (smooth + (1 - smooth) / 8), 1e-6 * middle);
}

}  // namespace
}  // namespace trainyard::kernels
