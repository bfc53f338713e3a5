#include "kernels/optim/dual_averaging.h"

#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/optim/dual_averaging_formula.h"
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
  HostTensor weight, anchor, dual, gradient;

  explicit Tensors(int64_t count)
      : weight(HostTensor::Normal(DType::kF32, {count}, 1)),
        anchor(HostTensor::Normal(DType::kF32, {count}, 2)),
        dual(HostTensor::Normal(DType::kF32, {count}, 3)),
        gradient(HostTensor::Normal(DType::kF32, {count}, 4)) {}

  DualAveragingArgs args() const {
    return {.weight = weight, .anchor = anchor, .dual = dual, .gradient = gradient, .eta = 0.3f, .gamma = 0.7f};
  }
};

double DriftOfStep(const Tensors& x, Stream& stream) {
  const HostTensor drift(DType::kU8, {sizeof(double)});
  const HostTensor workspace(DType::kU8, {DualDriftWorkspaceBytes(x.dual.view().size())});
  DualDrift(
      {.dual = x.dual, .gradient = x.gradient, .eta_before = 0.4f, .eta = 0.3f, .drift = drift, .workspace = workspace},
      stream);
  double result;
  std::memcpy(&result, drift.as<uint8_t>(), sizeof(result));
  return result;
}

class DualAveragingTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(DualAveragingTest, StepMatchesDoubleReference) {
  Tensors x(GetParam());
  const std::vector<double> anchor = x.anchor.ToDoubles(), gradient = x.gradient.ToDoubles();
  std::vector<double> dual = x.dual.ToDoubles(), weight(dual.size());
  for (size_t i = 0; i < dual.size(); ++i) {
    dual[i] -= gradient[i];
    weight[i] = anchor[i] + static_cast<double>(0.3f) * dual[i] - static_cast<double>(0.7f) * gradient[i];
  }
  testing::TestStream stream(1);
  DualAveraging(x.args(), stream);
  EXPECT_THAT(x.dual.ToDoubles(), AllNear(dual, ToleranceFor(DType::kF32)));
  EXPECT_THAT(x.weight.ToDoubles(), AllNear(weight, ToleranceFor(DType::kF32)));
}

TEST_P(DualAveragingTest, ThreadCountShowsInNoBit) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    Tensors x(GetParam());
    DualAveraging(x.args(), stream);
    std::vector<uint8_t> bytes = x.weight.Bytes();
    const std::vector<uint8_t> dual = x.dual.Bytes();
    bytes.insert(bytes.end(), dual.begin(), dual.end());
    return bytes;
  });
}

TEST_P(DualAveragingTest, DriftIsTheSquaredWayOfTheNextStep) {
  Tensors x(GetParam());
  const std::vector<double> before = x.dual.ToDoubles();
  testing::TestStream stream(1);
  const double drift = DriftOfStep(x, stream);
  DualAveraging(x.args(), stream);
  const std::vector<double> after = x.dual.ToDoubles();
  double expected = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    const double way = static_cast<double>(0.4f) * before[i] - static_cast<double>(0.3f) * after[i];
    expected += way * way;
  }
  EXPECT_NEAR(drift, expected, 1e-6 * expected);
}

TEST_P(DualAveragingTest, ThreadCountShowsInNoBitOfTheDrift) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const double drift = DriftOfStep(Tensors(GetParam()), stream);
    const auto* bytes = reinterpret_cast<const uint8_t*>(&drift);
    return std::vector<uint8_t>(bytes, bytes + sizeof(drift));
  });
}

TEST_P(DualAveragingTest, AllDevicesGiveTheBitsOfTheCpu) {
  testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
    Tensors x(GetParam());
    DualAveraging(x.args(), stream);
    std::vector<uint8_t> bytes = x.weight.Bytes();
    const std::vector<uint8_t> dual = x.dual.Bytes();
    bytes.insert(bytes.end(), dual.begin(), dual.end());
    return bytes;
  });
}

INSTANTIATE_TEST_SUITE_P(All, DualAveragingTest, ::testing::Values(1, 5, 511, 8193, 40001));

// methods/qoda.md, 5.1: f = theta phi from (1, 0), one worker, base rule. The step sizes are those of the file, so a
// wrong sign, order or anchor shows in the points.
TEST(DualAveragingFormula, FirstPointsOfTheBilinearGame) {
  const double eta[] = {0.7071067812, 0.5};
  const double expected[][2] = {{1, 1.4142135624}, {-0.4142135624, 1.5}};
  double x[2] = {1, 0}, dual[2] = {0, 0};
  const double anchor[2] = {1, 0};
  for (int t = 0; t < 2; ++t) {
    const double gradient[2] = {x[1], -x[0]};
    for (int i = 0; i < 2; ++i) DualAveragingElement(anchor[i], gradient[i], eta[t], eta[t], dual[i], x[i]);
    EXPECT_NEAR(x[0], expected[t][0], 1e-9);
    EXPECT_NEAR(x[1], expected[t][1], 1e-9);
  }
}

}  // namespace
}  // namespace trainyard::kernels
