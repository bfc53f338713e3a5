#include "kernels/transform/axis_norms.h"

#include <cmath>

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
using Shape = std::pair<int64_t, int64_t>;

HostTensor Norms(const HostTensor& x, int axis, NormOrder order, Stream& stream) {
  HostTensor norms = HostTensor::Filled(DType::kF32, {x.view().dim(axis)}, -7);
  AxisNorms({.x = x, .norms = norms, .axis = axis, .order = order}, stream);
  return norms;
}

class AxisNormsTest : public ::testing::TestWithParam<Shape> {
 protected:
  const HostTensor x_ = HostTensor::Normal(DType::kF32, {GetParam().first, GetParam().second}, 1);
};

TEST_P(AxisNormsTest, MatchesTheDefinition) {
  testing::TestStream stream(2);
  const auto [rows, cols] = GetParam();
  const std::vector<double> x = x_.ToDoubles();
  for (const NormOrder order : {NormOrder::kL1, NormOrder::kL2}) {
    std::vector<double> of_rows(static_cast<size_t>(rows)), of_cols(static_cast<size_t>(cols));
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        const double value = x[static_cast<size_t>(i * cols + j)];
        const double power = order == NormOrder::kL1 ? std::abs(value) : value * value;
        of_rows[static_cast<size_t>(i)] += power;
        of_cols[static_cast<size_t>(j)] += power;
      }
    }
    if (order == NormOrder::kL2) {
      for (double& norm : of_rows) norm = std::sqrt(norm);
      for (double& norm : of_cols) norm = std::sqrt(norm);
    }
    EXPECT_THAT(Norms(x_, 0, order, stream).ToDoubles(), AllNear(of_rows, {.relative = 1e-6}));
    EXPECT_THAT(Norms(x_, 1, order, stream).ToDoubles(), AllNear(of_cols, {.relative = 1e-6}));
  }
}

TEST_P(AxisNormsTest, SameBitsForAnyThreadCount) {
  for (const int axis : {0, 1}) {
    testing::ExpectSameBitsForAnyThreadCount(
        [&](Stream& stream) { return Norms(x_, axis, NormOrder::kL2, stream).Bytes(); });
  }
}

// Around the strips of 256 columns, the blocks of 32 rows and of 512 columns, and the lanes.
INSTANTIATE_TEST_SUITE_P(All, AxisNormsTest,
                         ::testing::Values(Shape{1, 1}, Shape{7, 5}, Shape{33, 255}, Shape{64, 257}, Shape{31, 513},
                                           Shape{100, 530}, Shape{1000, 3}));

// dct-lowrank.md 2.3: a hundred small entries against one large one. The two orders choose differently.
TEST(AxisNormsOrder, ManySmallEntriesAgainstOneLarge) {
  testing::TestStream stream(1);
  std::vector<double> values(200);
  for (size_t i = 0; i < 100; ++i) values[2 * i] = 0.02;
  values[1] = 1;
  const HostTensor x = HostTensor::Of(DType::kF32, {100, 2}, values);
  EXPECT_THAT(Norms(x, 1, NormOrder::kL1, stream).ToDoubles(), AllNear({2, 1}, {.absolute = 1e-6}));
  EXPECT_THAT(Norms(x, 1, NormOrder::kL2, stream).ToDoubles(), AllNear({0.2, 1}, {.absolute = 1e-6}));
}

}  // namespace
}  // namespace trainyard::kernels
