#include "kernels/optim/optimistic_adam.h"

#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/optim/optimistic_adam_formula.h"
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
  HostTensor weight, base, gradient, m, v, previous;

  explicit Tensors(int64_t count)
      : weight(HostTensor::Normal(DType::kF32, {count}, 1)),
        base(HostTensor::Normal(DType::kF32, {count}, 2)),
        gradient(HostTensor::Normal(DType::kF32, {count}, 3)),
        m(HostTensor::Normal(DType::kF32, {count}, 4)),
        v(HostTensor::Filled(DType::kF32, {count}, 0.5)),
        previous(HostTensor::Normal(DType::kF32, {count}, 5)) {}

  OptimisticAdamArgs args() const {
    return {.weight = weight, .gradient = gradient, .m = m, .v = v, .lr = 0.1f, .eps = 0.01f, .step = 3};
  }
};

class OptimisticAdamTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(OptimisticAdamTest, StepMatchesDoubleReference) {
  for (const bool from_base : {false, true}) {
    for (const bool optimistic : {false, true}) {
      Tensors x(GetParam());
      OptimisticAdamArgs args = x.args();
      if (from_base) args.base = x.base;
      if (optimistic) args.previous = x.previous;
      const std::vector<double> gradient = x.gradient.ToDoubles();
      std::vector<double> weight = from_base ? x.base.ToDoubles() : x.weight.ToDoubles();
      std::vector<double> m = x.m.ToDoubles(), v = x.v.ToDoubles(), previous = x.previous.ToDoubles();
      for (size_t i = 0; i < weight.size(); ++i) {
        m[i] = 0.5 * m[i] + 0.5 * gradient[i];
        v[i] = 0.9 * v[i] + 0.1 * gradient[i] * gradient[i];
        const double direction = m[i] / (1 - 0.125) / ((std::sqrt(v[i]) + 0.01) / std::sqrt(1 - 0.729));
        weight[i] -= optimistic ? 0.1 * (2 * direction - previous[i]) : 0.1 * direction;
        if (optimistic) previous[i] = direction;
      }
      testing::TestStream stream(1);
      OptimisticAdam(args, stream);
      EXPECT_THAT(x.weight.ToDoubles(), AllNear(weight, ToleranceFor(DType::kF32)));
      EXPECT_THAT(x.m.ToDoubles(), AllNear(m, ToleranceFor(DType::kF32)));
      EXPECT_THAT(x.v.ToDoubles(), AllNear(v, ToleranceFor(DType::kF32)));
      EXPECT_THAT(x.previous.ToDoubles(), AllNear(previous, ToleranceFor(DType::kF32)));
    }
  }
}

TEST_P(OptimisticAdamTest, ThreadCountShowsInNoBit) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    Tensors x(GetParam());
    OptimisticAdamArgs args = x.args();
    args.previous = x.previous;
    OptimisticAdam(args, stream);
    return x.weight.Bytes();
  });
}

TEST_P(OptimisticAdamTest, AllDevicesGiveTheBitsOfTheCpu) {
  for (const bool optimistic : {false, true}) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      Tensors x(GetParam());
      OptimisticAdamArgs args = x.args();
      args.base = x.base;
      if (optimistic) args.previous = x.previous;
      OptimisticAdam(args, stream);
      std::vector<uint8_t> bytes = x.weight.Bytes();
      for (const HostTensor* tensor : {&x.m, &x.v, &x.previous}) {
        const std::vector<uint8_t> more = tensor->Bytes();
        bytes.insert(bytes.end(), more.begin(), more.end());
      }
      return bytes;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, OptimisticAdamTest, ::testing::Values(1, 5, 511, 8193, 40001));

// methods/qoda.md, 5.3: f = theta phi from (1, 0.5), lr 0.01, betas 0.5 and 0.9, both players at once.
constexpr double kExpected[][2] = {{0.98, 0.52}, {0.96989388, 0.52994225}, {0.95975430, 0.53986436}};

TEST(OptimisticAdamFormula, PathOfTheBilinearGame) {
  double x[2] = {1, 0.5}, m[2] = {}, v[2] = {}, previous[2] = {};
  for (int t = 0; t < 3; ++t) {
    const auto constants = AdamConstants<double>::Of(0.5, 0.9, 1e-8, t + 1);
    const double gradient[2] = {x[1], -x[0]};
    for (int i = 0; i < 2; ++i) {
      x[i] = OptimisticStep(x[i], 0.01, AdamDirection(constants, gradient[i], m[i], v[i]), previous[i]);
    }
    EXPECT_NEAR(x[0], kExpected[t][0], 5e-9);  // as many digits as the file gives
    EXPECT_NEAR(x[1], kExpected[t][1], 5e-9);
  }
}

TEST(OptimisticAdam, PathOfTheBilinearGameInFloat) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {2}, {1, 0.5}), gradient(DType::kF32, {2});
  const HostTensor m(DType::kF32, {2}), v(DType::kF32, {2}), previous(DType::kF32, {2});
  for (int t = 0; t < 3; ++t) {
    gradient.as<float>()[0] = x.as<float>()[1];
    gradient.as<float>()[1] = -x.as<float>()[0];
    OptimisticAdam(
        {.weight = x, .gradient = gradient, .m = m, .v = v, .previous = previous, .lr = 0.01f, .step = t + 1}, stream);
    EXPECT_NEAR(x.ToDoubles()[0], kExpected[t][0], 5e-7);
    EXPECT_NEAR(x.ToDoubles()[1], kExpected[t][1], 5e-7);
  }
}

}  // namespace
}  // namespace trainyard::kernels
