#include "kernels/optim/low_rank_adam.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/optim/adamw.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::ToleranceFor;

struct Tensors {
  HostTensor a, m, v;
  HostTensor factor = HostTensor::Of(DType::kF32, {1}, {0.5});

  explicit Tensors(int64_t count)
      : a(HostTensor::Normal(DType::kF32, {count}, 1)),
        m(HostTensor::Normal(DType::kF32, {count}, 2, 0.1)),
        v(HostTensor::Normal(DType::kF32, {count}, 3, 0.01)) {
    for (int64_t i = 0; i < count; ++i) v.as<float>()[i] = std::abs(v.as<float>()[i]);
  }
  LowRankAdamArgs args() const {
    return {.a = a, .m = m, .v = v, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-3f, .step = 7, .gradient_factor = factor};
  }
};

class LowRankAdamTest : public ::testing::TestWithParam<int64_t> {};

// The published form, with eps sqrt(1 - beta2^t) and the corrections in the rate (dct-lowrank.md 2.5).
TEST_P(LowRankAdamTest, MatchesThePublishedFormInDouble) {
  Tensors x(GetParam());
  std::vector<double> a = x.a.ToDoubles(), m = x.m.ToDoubles(), v = x.v.ToDoubles();
  const LowRankAdamArgs args = x.args();
  const double b1 = args.beta1, b2 = args.beta2, t = 7;
  for (size_t i = 0; i < a.size(); ++i) {
    const double g = 0.5 * a[i];
    m[i] = b1 * m[i] + (1 - b1) * g;
    v[i] = b2 * v[i] + (1 - b2) * g * g;
    const double u = m[i] / (std::sqrt(v[i]) + static_cast<double>(args.eps) * std::sqrt(1 - std::pow(b2, t)));
    a[i] = std::sqrt(1 - std::pow(b2, t)) / (1 - std::pow(b1, t)) * u;
  }
  testing::TestStream stream(2);
  LowRankAdam(args, stream);
  EXPECT_THAT(x.a.ToDoubles(), AllNear(a, ToleranceFor(DType::kF32)));
  EXPECT_THAT(x.m.ToDoubles(), AllNear(m, ToleranceFor(DType::kF32)));
  EXPECT_THAT(x.v.ToDoubles(), AllNear(v, ToleranceFor(DType::kF32)));
}

TEST_P(LowRankAdamTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    Tensors x(GetParam());
    LowRankAdam(x.args(), stream);
    return x.a.Bytes();
  });
}

TEST_P(LowRankAdamTest, AllDevicesGiveTheBitsOfTheCpu) {
  testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
    Tensors x(GetParam());
    LowRankAdam(x.args(), stream);
    std::vector<uint8_t> bytes = x.a.Bytes();
    for (const HostTensor* tensor : {&x.m, &x.v}) {
      const std::vector<uint8_t> more = tensor->Bytes();
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    return bytes;
  });
}

TEST_P(LowRankAdamTest, MomentsAndDirectionHaveTheBitsOfAdamW) {
  Tensors x(GetParam()), y(GetParam());
  const LowRankAdamArgs args = x.args();
  testing::TestStream stream(1);
  const HostTensor param(DType::kF32, {GetParam()});
  AdamW({.param = param,
         .grad = y.a,
         .m = y.m,
         .v = y.v,
         .lr = -1.0f,  // from 0, by minus the step
         .beta1 = args.beta1,
         .beta2 = args.beta2,
         .eps = args.eps,
         .step = args.step,
         .gradient_factor = y.factor},
        stream);
  LowRankAdam(args, stream);
  EXPECT_EQ(x.a.Bytes(), param.Bytes());
  EXPECT_EQ(x.m.Bytes(), y.m.Bytes());
  EXPECT_EQ(x.v.Bytes(), y.v.Bytes());
}

INSTANTIATE_TEST_SUITE_P(All, LowRankAdamTest, ::testing::Values(1, 5, 8191, 20001));

// dct-lowrank.md, pitfall 1: a column that is new late in training steps by (1 - b1) / sqrt(1 - b2).
TEST(LowRankAdam, FreshColumnsKick) {
  testing::TestStream stream(1);
  for (const auto& [beta2, kick] : {std::pair{0.999f, 3.162}, {0.98f, 0.707}, {0.95f, 0.447}}) {
    const HostTensor a = HostTensor::Of(DType::kF32, {2}, {1e-3, -20});
    const HostTensor m(DType::kF32, {2}), v(DType::kF32, {2});
    LowRankAdam({.a = a, .m = m, .v = v, .beta2 = beta2, .step = 1000000}, stream);
    EXPECT_THAT(a.ToDoubles(), AllNear({kick, -kick}, {.absolute = 1e-3}));
  }
}

}  // namespace
}  // namespace trainyard::kernels
