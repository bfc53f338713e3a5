#include "kernels/optim/sgd.h"

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

struct Tensors {
  HostTensor param, grad, velocity;

  explicit Tensors(int64_t count, DType dtype = DType::kF32)
      : param(HostTensor::Normal(dtype, {count}, 1)),
        grad(HostTensor::Normal(dtype, {count}, 2)),
        velocity(HostTensor::Normal(dtype, {count}, 3)) {}

  SgdArgs args() const {
    return {.param = param,
            .grad = grad,
            .velocity = velocity,
            .lr = 0.1f,
            .momentum = 0.9f,
            .weight_decay = 0.01f,
            .grad_scale = 0.5f};
  }
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> bytes = param.Bytes();
    const std::vector<uint8_t> more = velocity.Bytes();
    bytes.insert(bytes.end(), more.begin(), more.end());
    return bytes;
  }
};

class SgdTest : public ::testing::TestWithParam<OpCase> {};

TEST_P(SgdTest, StepMatchesDoubleReference) {
  const DType dtype = GetParam().dtype;
  for (bool nesterov : {false, true}) {
    Tensors x(GetParam().dim(0), dtype);
    SgdArgs args = x.args();
    args.nesterov = nesterov;
    std::vector<double> param = x.param.ToDoubles(), velocity = x.velocity.ToDoubles();
    const std::vector<double> grad = x.grad.ToDoubles();
    const double lr = args.lr, momentum = args.momentum, decay = args.weight_decay;
    for (size_t i = 0; i < param.size(); ++i) {
      const double g = 0.5 * grad[i] + decay * param[i];
      velocity[i] = momentum * velocity[i] + g;
      param[i] -= lr * (nesterov ? g + momentum * velocity[i] : velocity[i]);
    }
    testing::TestStream stream(1);
    Sgd(args, stream);
    EXPECT_THAT(x.velocity.ToDoubles(), AllNear(velocity, ToleranceFor(dtype)));
    EXPECT_THAT(x.param.ToDoubles(), AllNear(param, ToleranceFor(dtype)));
  }
}

TEST_P(SgdTest, ThreadCountShowsInNoBit) {
  for (Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
    testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
      Tensors x(GetParam().dim(0), GetParam().dtype);
      SgdArgs args = x.args();
      args.rounding = rounding;
      Sgd(args, stream);
      return x.Bytes();
    });
  }
}

TEST_P(SgdTest, AllDevicesGiveTheBitsOfTheCpu) {
  for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
    for (const bool has_velocity : {false, true}) {
      testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
        Tensors x(GetParam().dim(0), GetParam().dtype);
        SgdArgs args = x.args();
        args.rounding = rounding;
        args.nesterov = true;
        args.first_element = 3;
        if (!has_velocity) {
          args.velocity = {};
          args.momentum = 0;
        }
        Sgd(args, stream);
        return x.Bytes();
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SgdTest, ::testing::ValuesIn(OpCases({{1}, {5}, {511}, {513}, {40001}})),
                         testing::OpCaseName);

// Sum of a geometric series: velocity (1 - mu^n) / (1 - mu) g after n steps.
TEST(Sgd, ConstantGradientBuildsUpMomentum) {
  testing::TestStream stream(1);
  Tensors x(2);
  x.param = HostTensor::Of(DType::kF32, {2}, {0, 0});
  x.grad = HostTensor::Of(DType::kF32, {2}, {1, -2});
  x.velocity = HostTensor(DType::kF32, {2});
  SgdArgs args = x.args();
  args.grad_scale = 1;
  args.weight_decay = 0;
  args.momentum = 0.5f;
  for (int step = 0; step < 3; ++step) Sgd(args, stream);
  EXPECT_THAT(x.velocity.ToDoubles(), AllNear({1.75, -3.5}, ToleranceFor(DType::kF32)));
  EXPECT_THAT(x.param.ToDoubles(), AllNear({-0.425, 0.85}, ToleranceFor(DType::kF32)));  // 1 + 1.5 + 1.75 times 0.1
}

TEST(Sgd, WithoutMomentumNeedsNoVelocity) {
  testing::TestStream stream(1);
  Tensors x(700);
  SgdArgs args = x.args();
  args.momentum = 0;
  args.velocity = {};
  args.grad_scale = 1;
  args.weight_decay = 0.1f;
  const std::vector<double> grad = x.grad.ToDoubles();
  std::vector<double> expected = x.param.ToDoubles();
  const double lr = args.lr, decay = args.weight_decay;
  for (size_t i = 0; i < expected.size(); ++i) expected[i] -= lr * (grad[i] + decay * expected[i]);
  Sgd(args, stream);
  EXPECT_THAT(x.param.ToDoubles(), AllNear(expected, ToleranceFor(DType::kF32)));
}

TEST(Sgd, MasterTakesTheUpdateAndParamItsRounding) {
  testing::TestStream stream(1);
  Tensors x(600, DType::kBF16), exact(600);
  exact.grad = HostTensor::Of(DType::kF32, {600}, x.grad.ToDoubles());
  const HostTensor velocity = exact.velocity.Copy();
  const HostTensor master = exact.param.Copy();
  SgdArgs args = x.args();
  args.master = master;
  args.velocity = velocity;
  Sgd(args, stream);
  Sgd(exact.args(), stream);
  EXPECT_EQ(master.Bytes(), exact.param.Bytes());
  EXPECT_EQ(x.param.Bytes(), HostTensor::Of(DType::kBF16, {600}, master.ToDoubles()).Bytes());
}

// lr = -1 over zero parameters stores the velocity, so both stored bits can be told; they use words of their own.
TEST(SgdStochastic, WordsAreKeyedByPurposeAndElement) {
  constexpr int64_t kCount = 1200;
  testing::TestStream stream(2);
  Tensors x(kCount, DType::kBF16);
  const HostTensor grad = HostTensor::Normal(DType::kF32, {kCount}, 9);
  x.param = HostTensor(DType::kBF16, {kCount});
  x.velocity = HostTensor(DType::kBF16, {kCount});
  SgdArgs args = x.args();
  args.grad = grad;
  args.grad_scale = 1;
  args.weight_decay = 0;
  args.lr = -1;
  args.rounding = Rounding::kStochastic;
  args.random = {.seed = 11, .step = 5, .tensor = 9};
  args.first_element = 6;
  Sgd(args, stream);
  for (int64_t i = 0; i < kCount; ++i) {
    PhiloxKey key = args.random;
    const float g = grad.as<float>()[i];
    key.purpose = kRandomRoundFirstMoment;
    ASSERT_EQ(x.velocity.as<BFloat16>()[i].bits,
              RoundStochastic<BFloat16>(g, RandomWord(key, static_cast<uint64_t>(6 + i))).bits);
    key.purpose = kRandomRoundWeight;
    ASSERT_EQ(x.param.as<BFloat16>()[i].bits,
              RoundStochastic<BFloat16>(g, RandomWord(key, static_cast<uint64_t>(6 + i))).bits);
  }
}

}  // namespace
}  // namespace trainyard::kernels
