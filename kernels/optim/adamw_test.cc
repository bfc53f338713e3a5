#include "kernels/optim/adamw.h"

#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/number_format.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::OpCase;
using testing::OpCases;
using testing::ToleranceFor;

// One state of the optimizer in double.
struct Reference {
  std::vector<double> param, m, v;

  void Step(const AdamWArgs& a, const std::vector<double>& grad) {
    const double b1 = a.beta1, b2 = a.beta2, t = static_cast<double>(a.step);
    for (size_t i = 0; i < param.size(); ++i) {
      const double g = grad[i] * static_cast<double>(a.grad_scale);
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      const double m_hat = m[i] / (1 - std::pow(b1, t));
      const double v_hat = v[i] / (1 - std::pow(b2, t));
      param[i] -= a.lr * (m_hat / (std::sqrt(v_hat) + a.eps) + a.weight_decay * param[i]);
    }
  }
};

struct Tensors {
  HostTensor param, grad, m, v;

  explicit Tensors(int64_t count, DType param_dtype = DType::kF32, DType moment_dtype = DType::kF32)
      : param(HostTensor::Normal(param_dtype, {count}, 1)),
        grad(HostTensor::Normal(param_dtype, {count}, 2, 0.1)),
        m(HostTensor::Normal(moment_dtype, {count}, 3, 0.1)),
        v(HostTensor::Normal(moment_dtype, {count}, 4, 0.01)) {
    // Second moments are not negative.
    std::vector<double> squares = v.ToDoubles();
    for (double& x : squares) x = std::abs(x);
    v = HostTensor::Of(moment_dtype, {count}, squares);
  }

  AdamWArgs args() const {
    return {.param = param, .grad = grad, .m = m, .v = v, .lr = 0.01f, .weight_decay = 0.1f, .step = 3};
  }
  Reference reference() const { return {param.ToDoubles(), m.ToDoubles(), v.ToDoubles()}; }
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> bytes = param.Bytes();
    for (const HostTensor* tensor : {&m, &v}) {
      const std::vector<uint8_t> more = tensor->Bytes();
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    return bytes;
  }
};

class AdamWTest : public ::testing::TestWithParam<OpCase> {};

TEST_P(AdamWTest, StepMatchesDoubleReference) {
  const DType dtype = GetParam().dtype;
  for (DType moment_dtype : {DType::kF32, DType::kBF16}) {
    Tensors x(GetParam().dim(0), dtype, moment_dtype);
    AdamWArgs args = x.args();
    args.grad_scale = 0.5f;
    Reference expected = x.reference();
    expected.Step(args, x.grad.ToDoubles());
    testing::TestStream stream(1);
    AdamW(args, stream);
    EXPECT_THAT(x.m.ToDoubles(), AllNear(expected.m, ToleranceFor(moment_dtype)));
    EXPECT_THAT(x.v.ToDoubles(), AllNear(expected.v, ToleranceFor(moment_dtype)));
    EXPECT_THAT(x.param.ToDoubles(), AllNear(expected.param, ToleranceFor(dtype)));
  }
}

TEST_P(AdamWTest, ThreadCountShowsInNoBit) {
  for (Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
    testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
      Tensors x(GetParam().dim(0), GetParam().dtype, GetParam().dtype);
      AdamWArgs args = x.args();
      args.rounding = rounding;
      AdamW(args, stream);
      return x.Bytes();
    });
  }
}

// Every mix of storage types, with and without a master; an odd beginning takes elements one by one.
TEST_P(AdamWTest, AllDevicesGiveTheBitsOfTheCpu) {
  for (const DType moment_dtype : {DType::kF32, DType::kBF16}) {
    for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
      for (const int64_t begin : {0, 1}) {
        if (begin >= GetParam().dim(0)) continue;
        testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
          const int64_t count = GetParam().dim(0);
          Tensors x(count, GetParam().dtype, moment_dtype);
          const HostTensor master = HostTensor::Normal(DType::kF32, {count}, 5);
          AdamWArgs args = x.args();
          if (begin == 1) args.master = master;
          for (TensorView* view : {&args.param, &args.grad, &args.m, &args.v, &args.master}) {
            if (*view) *view = view->Slice(begin, count - begin);
          }
          args.rounding = rounding;
          args.random = {.seed = 11, .step = 5, .tensor = 9};
          args.first_element = 4 * begin + 2 * (1 - begin);
          AdamW(args, stream);
          std::vector<uint8_t> bytes = x.Bytes();
          const std::vector<uint8_t> more = master.Bytes();
          bytes.insert(bytes.end(), more.begin(), more.end());
          return bytes;
        });
      }
    }
  }
}

// Around a block of 512, and enough for several threads.
INSTANTIATE_TEST_SUITE_P(All, AdamWTest, ::testing::ValuesIn(OpCases({{1}, {5}, {511}, {513}, {40001}})),
                         testing::OpCaseName);

// From zero moments, bias correction makes every step with a constant gradient exactly lr long, whatever the gradient's
// size; without it the first would be 0.45 lr or so.
TEST(AdamW, ConstantGradientStepsByLearningRate) {
  testing::TestStream stream(1);
  Tensors x(4);
  x.param = HostTensor::Of(DType::kF32, {4}, {1, 1, 1, 1});
  x.grad = HostTensor::Of(DType::kF32, {4}, {1e-3, -1e-3, 5, -100});
  x.m = HostTensor(DType::kF32, {4});
  x.v = HostTensor(DType::kF32, {4});
  AdamWArgs args = x.args();
  args.eps = 0;
  args.weight_decay = 0;
  for (args.step = 1; args.step <= 5; ++args.step) AdamW(args, stream);
  EXPECT_THAT(x.param.ToDoubles(), AllNear({0.95, 1.05, 0.95, 1.05}, {.absolute = 1e-6}));
}

// Decay is decoupled: it neither passes through the moments nor is divided by them.
TEST(AdamW, DecayAloneShrinksParameters) {
  testing::TestStream stream(1);
  Tensors x(3);
  x.param = HostTensor::Of(DType::kF32, {3}, {1, -2, 4});
  for (HostTensor* tensor : {&x.grad, &x.m, &x.v}) *tensor = HostTensor(DType::kF32, {3});
  AdamW(x.args(), stream);  // lr 0.01, decay 0.1
  EXPECT_THAT(x.param.ToDoubles(), AllNear({0.999, -1.998, 3.996}, {.absolute = 1e-6}));
  EXPECT_EQ(x.m.ToDoubles(), std::vector<double>(3, 0.0));
}

TEST(AdamW, FactorOnTheDeviceMultipliesTheGradient) {
  testing::TestStream stream(1);
  Tensors x(700), y(700);
  const HostTensor factor = HostTensor::Of(DType::kF32, {1}, {0.25});
  AdamWArgs args = x.args();
  args.grad_scale = 0.125f;
  AdamW(args, stream);
  args = y.args();
  args.grad_scale = 0.5f;
  args.gradient_factor = factor;
  AdamW(args, stream);
  EXPECT_EQ(x.Bytes(), y.Bytes());
}

// Updates go to the master; param is its rounding and is never read.
TEST(AdamW, MasterKeepsWhatBf16WouldLose) {
  testing::TestStream stream(1);
  Tensors x(600, DType::kBF16), exact(600);
  exact.grad = HostTensor::Of(DType::kF32, {600}, x.grad.ToDoubles());
  HostTensor master = exact.param.Copy();
  x.param = HostTensor::Filled(DType::kBF16, {600}, 77);
  AdamWArgs args = x.args();
  args.master = master;
  args.rounding = Rounding::kStochastic;
  AdamW(args, stream);
  AdamW(exact.args(), stream);
  EXPECT_EQ(master.Bytes(), exact.param.Bytes());
  EXPECT_EQ(x.param.Bytes(), HostTensor::Of(DType::kBF16, {600}, master.ToDoubles()).Bytes());
}

// 1 - 1/10 of the step below 1: nearest never moves, stochastic moves a tenth of the elements. 100000 draws: standard
// deviation of the count 95; the bound is 5 of them.
TEST(AdamWStochastic, SmallUpdatesSurviveOnAverage) {
  constexpr int64_t kCount = 100000;
  constexpr double kStep = 1.0 / 256;  // of bf16 below 1
  for (Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
    testing::TestStream stream(1);
    Tensors x(kCount, DType::kBF16);
    x.param = HostTensor::Filled(DType::kBF16, {kCount}, 1);
    x.grad = HostTensor::Filled(DType::kBF16, {kCount}, 1);
    x.m = HostTensor(DType::kF32, {kCount});
    x.v = HostTensor(DType::kF32, {kCount});
    AdamWArgs args = x.args();
    args.step = 1;
    args.weight_decay = 0;
    args.lr = static_cast<float>(kStep / 10);
    args.rounding = rounding;
    AdamW(args, stream);
    int64_t moved = 0;
    for (double p : x.param.ToDoubles()) {
      ASSERT_TRUE(p == 1.0 || p == 1.0 - kStep) << p;
      moved += p != 1.0;
    }
    EXPECT_NEAR(static_cast<double>(moved), rounding == Rounding::kNearestEven ? 0 : 10000,
                rounding == Rounding::kNearestEven ? 0 : 5 * 95);
  }
}

// With beta1 = beta2 = 0 the moments are the gradient and its square, so their stored bits can be told exactly: each
// element's own word, of the moment's own purpose.
TEST(AdamWStochastic, WordsAreKeyedByPurposeAndElement) {
  constexpr int64_t kCount = 1500;
  constexpr int64_t kFirst = 1001;  // of a shard, and no multiple of four
  testing::TestStream stream(2);
  Tensors x(kCount, DType::kF32, DType::kBF16);
  AdamWArgs args = x.args();
  args.beta1 = 0;
  args.beta2 = 0;
  args.rounding = Rounding::kStochastic;
  args.random = {.seed = 11, .step = 5, .tensor = 9};
  args.first_element = kFirst;
  AdamW(args, stream);
  for (int64_t i = 0; i < kCount; ++i) {
    PhiloxKey key = args.random;
    const float g = x.grad.as<float>()[i];
    key.purpose = kRandomRoundFirstMoment;
    const uint32_t word = RandomWord(key, static_cast<uint64_t>(kFirst + i));
    ASSERT_EQ(x.m.as<BFloat16>()[i].bits, RoundStochastic<BFloat16>(g, word).bits) << i;
    key.purpose = kRandomRoundSecondMoment;
    const uint32_t other_word = RandomWord(key, static_cast<uint64_t>(kFirst + i));
    ASSERT_EQ(x.v.as<BFloat16>()[i].bits, RoundStochastic<BFloat16>(g * g, other_word).bits) << i;
  }
}

TEST(AdamWStochastic, ShardsRoundAsTheWhole) {
  constexpr int64_t kCount = 3000, kCut = 1001;
  testing::TestStream stream(1);
  Tensors whole(kCount, DType::kBF16, DType::kBF16), cut(kCount, DType::kBF16, DType::kBF16);
  AdamWArgs args = whole.args();
  args.rounding = Rounding::kStochastic;
  AdamW(args, stream);
  for (int64_t begin : {int64_t{0}, kCut}) {
    const int64_t count = begin == 0 ? kCut : kCount - kCut;
    AdamWArgs part = cut.args();
    part.rounding = Rounding::kStochastic;
    for (TensorView* view : {&part.param, &part.grad, &part.m, &part.v}) *view = view->Slice(begin, count);
    part.first_element = begin;
    AdamW(part, stream);
  }
  EXPECT_EQ(whole.Bytes(), cut.Bytes());
}

// A dither that is the same in every step, or in every tensor, biases over time.
TEST(AdamWStochastic, StepAndTensorAndSeedChangeTheWords) {
  const auto run = [](const PhiloxKey& random) {
    testing::TestStream stream(1);
    Tensors x(2000, DType::kBF16, DType::kBF16);
    AdamWArgs args = x.args();
    args.rounding = Rounding::kStochastic;
    args.random = random;
    AdamW(args, stream);
    return x.Bytes();
  };
  const PhiloxKey base = {.seed = 1, .step = 2, .tensor = 3};
  EXPECT_EQ(run(base), run(base));
  EXPECT_NE(run(base), run({.seed = 4, .step = 2, .tensor = 3}));
  EXPECT_NE(run(base), run({.seed = 1, .step = 4, .tensor = 3}));
  EXPECT_NE(run(base), run({.seed = 1, .step = 2, .tensor = 4}));
}

// What an E4M3 moment stands for.
std::vector<double> Decoded(const HostTensor& codes, const HostTensor& scales) {
  std::vector<double> values;
  for (int64_t i = 0; i < codes.view().size(); ++i) {
    values.push_back(WidenToFloat(codes.as<Float8E4M3>()[i]) * scales.as<float>()[i / kMomentGroup]);
  }
  return values;
}

// A first moment in E4M3, after one step so that it is not zero, beside the same in f32. The last group is a short one.
class AdamWE4M3MomentTest : public ::testing::TestWithParam<Rounding> {
 protected:
  static constexpr int64_t kCount = 1500;

  AdamWE4M3MomentTest() : codes_(DType::kF8E4M3, {kCount}), scales_(DType::kF32, {12}), x_(kCount), exact_(kCount) {
    AdamWArgs args = Args();
    args.step = 1;
    AdamW(args, stream_);
    for (const auto& [from, to] : {std::pair{&x_.param, &exact_.param}, {&x_.v, &exact_.v}}) *to = from->Copy();
    exact_.m = HostTensor::Of(DType::kF32, {kCount}, Decoded(codes_, scales_));
  }
  AdamWArgs Args() {
    AdamWArgs args = x_.args();
    args.m = codes_;
    args.m_scales = scales_;
    args.rounding = GetParam();
    args.random = {.seed = 11, .step = 5, .tensor = 9};
    return args;
  }

  testing::TestStream stream_{2};
  HostTensor codes_, scales_;
  Tensors x_, exact_;
};
INSTANTIATE_TEST_SUITE_P(All, AdamWE4M3MomentTest, ::testing::Values(Rounding::kNearestEven, Rounding::kStochastic));

// The update reads the decoded moment and uses the new one before it is rounded: only the moment itself differs from a
// step with f32 moments. Each group has the scale at which its largest lands on 448, and each element its own word.
TEST_P(AdamWE4M3MomentTest, DiffersFromF32InTheStoredMomentOnly) {
  AdamW(Args(), stream_);
  AdamW(exact_.args(), stream_);
  EXPECT_EQ(x_.param.Bytes(), exact_.param.Bytes());
  EXPECT_EQ(x_.v.Bytes(), exact_.v.Bytes());
  const float* const m = exact_.m.as<float>();
  for (int64_t begin = 0; begin < kCount; begin += kMomentGroup) {
    const int64_t end = std::min(kCount, begin + kMomentGroup);
    float amax = 0;
    for (int64_t i = begin; i < end; ++i) amax = std::max(amax, std::abs(m[i]));
    const float scale = scales_.as<float>()[begin / kMomentGroup];
    ASSERT_EQ(scale, amax / 448.0f);
    for (int64_t i = begin; i < end; ++i) {
      PhiloxKey key = Args().random;
      key.purpose = kRandomRoundFirstMoment;
      const float scaled = m[i] * (1 / scale);
      const Float8E4M3 expected =
          GetParam() == Rounding::kNearestEven
              ? RoundNearest<Float8E4M3>(scaled, Overflow::kSaturate)
              : RoundStochastic<Float8E4M3>(scaled, RandomWord(key, static_cast<uint64_t>(i)), Overflow::kSaturate);
      ASSERT_EQ(codes_.as<Float8E4M3>()[i].bits, expected.bits) << i;
    }
  }
}

TEST_P(AdamWE4M3MomentTest, ShardsAtGroupsAndThreadsShowInNoBit) {
  const std::vector<uint8_t> start_codes = codes_.Bytes(), start_scales = scales_.Bytes();
  const HostTensor param = x_.param.Copy(), v = x_.v.Copy();
  AdamW(Args(), stream_);
  const std::vector<uint8_t> whole_codes = codes_.Bytes(), whole_param = x_.param.Bytes();

  std::memcpy(codes_.view().data(), start_codes.data(), start_codes.size());
  std::memcpy(scales_.view().data(), start_scales.data(), start_scales.size());
  x_.param = param.Copy();
  x_.v = v.Copy();
  Stream alone(1);
  constexpr int64_t kCut = 5 * kMomentGroup;
  for (const int64_t begin : {int64_t{0}, kCut}) {
    const int64_t count = begin == 0 ? kCut : kCount - kCut;
    AdamWArgs part = Args();
    for (TensorView* view : {&part.param, &part.grad, &part.m, &part.v}) *view = view->Slice(begin, count);
    part.m_scales = part.m_scales.Slice(begin / kMomentGroup, begin == 0 ? 5 : 7);
    part.first_element = begin;
    AdamW(part, alone);
  }
  EXPECT_EQ(codes_.Bytes(), whole_codes);
  EXPECT_EQ(x_.param.Bytes(), whole_param);
}

TEST_P(AdamWE4M3MomentTest, AllDevicesGiveTheBitsOfTheCpu) {
  testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
    Tensors x(kCount);
    const HostTensor codes(DType::kF8E4M3, {kCount}), scales(DType::kF32, {12});
    AdamWArgs args = Args();
    args.param = x.param;
    args.grad = x.grad;
    args.m = codes;
    args.m_scales = scales;
    args.v = x.v;
    for (args.step = 1; args.step <= 3; ++args.step) AdamW(args, stream);
    std::vector<uint8_t> bytes = x.param.Bytes();
    for (const HostTensor* tensor : {&codes, &scales, static_cast<const HostTensor*>(&x.v)}) {
      const std::vector<uint8_t> more = tensor->Bytes();
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    return bytes;
  });
}

// No gradient ever: no scale of zero is inverted. And what is not a number is not hidden.
TEST_P(AdamWE4M3MomentTest, ZeroStaysZeroAndNanStaysNan) {
  codes_ = HostTensor(DType::kF8E4M3, {kCount});
  scales_ = HostTensor(DType::kF32, {12});
  x_.grad = HostTensor(DType::kF32, {kCount});
  x_.grad.as<float>()[700] = std::nanf("");
  AdamW(Args(), stream_);
  const std::vector<double> m = Decoded(codes_, scales_);
  EXPECT_TRUE(std::isnan(m[700]));
  for (int64_t i = 0; i < kCount; ++i) {
    if (i / kMomentGroup == 700 / kMomentGroup) continue;
    ASSERT_EQ(m[static_cast<size_t>(i)], 0.0) << i;
  }
}

// One element of each group keeps its moment, and with it the scale; the others shrink by 1/1000 a step: to nearest
// they never move, stochastically their mean decays. 4064 elements, about 1.2 jumps of 8 % each: deviation of the mean
// 0.0014.
TEST(AdamWE4M3Moment, SlowDecayNeedsStochasticRounding) {
  constexpr int64_t kCount = 4096;
  for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
    testing::TestStream stream(1);
    const Tensors x(kCount);
    const HostTensor codes(DType::kF8E4M3, {kCount}), scales(DType::kF32, {kCount / kMomentGroup});
    AdamWArgs args = x.args();
    args.m = codes;
    args.m_scales = scales;
    args.rounding = rounding;
    args.beta1 = 0;  // the moment is the gradient
    for (int64_t i = 0; i < kCount; ++i) {
      x.grad.as<float>()[i] = i % kMomentGroup == 0 ? 0.02f : 0.01f + 1e-4f * static_cast<float>(i % 97);
    }
    AdamW(args, stream);
    const std::vector<double> first = Decoded(codes, scales);
    args.beta1 = 0.999f;
    for (int64_t i = 0; i < kCount; ++i) x.grad.as<float>()[i] = i % kMomentGroup == 0 ? 0.02f : 0.0f;
    for (args.random.step = 1; args.random.step <= 100; ++args.random.step) AdamW(args, stream);
    const std::vector<double> last = Decoded(codes, scales);
    double ratio = 0;
    for (size_t i = 0; i < first.size(); ++i) {
      if (i % kMomentGroup != 0) ratio += last[i] / first[i] / (kCount - kCount / kMomentGroup);
    }
    EXPECT_NEAR(ratio, rounding == Rounding::kStochastic ? std::pow(0.999, 100) : 1.0, 0.01);
  }
}

}  // namespace
}  // namespace trainyard::kernels
