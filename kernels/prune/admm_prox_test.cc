#include "kernels/prune/admm_prox.h"

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
using testing::OpCase;
using testing::OpCases;
using testing::ToleranceFor;

class AdmmProxTest : public ::testing::TestWithParam<OpCase> {};

TEST_P(AdmmProxTest, MatchesDoubleReference) {
  const int64_t count = GetParam().dim(0);
  const DType dtype = GetParam().dtype;
  const HostTensor x = HostTensor::Normal(dtype, {count}, 1);
  const HostTensor z = HostTensor::Normal(dtype, {count}, 2);
  const HostTensor u = HostTensor::Normal(dtype, {count}, 3);
  const HostTensor factor = HostTensor::Of(DType::kF32, {1}, {0.25});
  for (const bool is_merged : {false, true}) {
    const HostTensor grad = HostTensor::Normal(DType::kF32, {count}, 4);
    std::vector<double> expected = grad.ToDoubles();
    for (size_t i = 0; i < expected.size(); ++i) {
      const double dual = is_merged ? 0 : u.ToDoubles()[i];
      expected[i] = 0.25 * expected[i] + 0.5 * (x.ToDoubles()[i] - z.ToDoubles()[i] + dual);
      if (expected.size() > 4000) break;  // long cases are for the threads
    }
    AdmmProxArgs args = {.grad = grad, .x = x, .z = {z}, .gradient_factor = factor, .lambda = 0.5f};
    if (!is_merged) args.u = {u};
    testing::TestStream stream(1);
    AdmmProx(args, stream);
    if (expected.size() > 4000) {
      EXPECT_NEAR(grad.ToDoubles()[0], expected[0], 1e-5);
      continue;
    }
    EXPECT_THAT(grad.ToDoubles(), AllNear(expected, ToleranceFor(DType::kF32)));
  }
}

TEST_P(AdmmProxTest, ThreadCountShowsInNoBit) {
  const int64_t count = GetParam().dim(0);
  const HostTensor x = HostTensor::Normal(GetParam().dtype, {count}, 1);
  const HostTensor s = HostTensor::Normal(GetParam().dtype, {count}, 2);
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor grad = HostTensor::Normal(DType::kF32, {count}, 4);
    AdmmProx({.grad = grad, .x = x, .z = {s}, .lambda = 0.1f}, stream);
    return grad.Bytes();
  });
}

TEST_P(AdmmProxTest, AllDevicesGiveTheBitsOfTheCpu) {
  const int64_t count = GetParam().dim(0);
  const HostTensor x = HostTensor::Normal(GetParam().dtype, {count}, 1);
  const HostTensor z = HostTensor::Normal(GetParam().dtype, {count}, 2);
  const HostTensor u = HostTensor::Normal(GetParam().dtype, {count}, 3);
  const HostTensor factor = HostTensor::Of(DType::kF32, {1}, {0.3});
  for (const bool is_merged : {false, true}) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      const HostTensor grad = HostTensor::Normal(DType::kF32, {count}, 4);
      AdmmProxArgs args = {.grad = grad, .x = x, .z = {z}, .gradient_factor = factor, .lambda = 0.1f};
      if (!is_merged) args.u = {u};
      AdmmProx(args, stream);
      return grad.Bytes();
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, AdmmProxTest, ::testing::ValuesIn(OpCases({{1}, {7}, {511}, {513}, {40001}})),
                         testing::OpCaseName);

// FP8 states are read with their scale.
TEST(AdmmProx, ReadsCodesWithTheirScale) {
  const HostTensor x = HostTensor::Of(DType::kF32, {2}, {1, 1});
  const HostTensor z(DType::kF8E4M3, {2});
  z.as<Float8E4M3>()[0] = {0x38};  // 1
  z.as<Float8E4M3>()[1] = {0xC4};  // -3
  const HostTensor scale = HostTensor::Of(DType::kF32, {1}, {0.25});
  const HostTensor grad(DType::kF32, {2});
  testing::TestStream stream(1);
  AdmmProx({.grad = grad, .x = x, .z = {z, scale}, .lambda = 1}, stream);
  EXPECT_EQ(grad.ToDoubles(), (std::vector<double>{0.75, 1.75}));
}

}  // namespace
}  // namespace trainyard::kernels
