#include "kernels/quant/abs_max.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;
using testing::OpCase;

class AbsMaxTest : public ::testing::TestWithParam<OpCase> {};
INSTANTIATE_TEST_SUITE_P(All, AbsMaxTest,
                         ::testing::ValuesIn(testing::OpCases({{1, 1}, {3, 7}, {2, 40000}, {1000, 65}, {4, 0}})),
                         testing::OpCaseName);

TEST_P(AbsMaxTest, OfRowsAndOfAll) {
  const int64_t rows = GetParam().dim(0);
  const int64_t cols = GetParam().dim(1);
  const HostTensor x = HostTensor::Normal(GetParam().dtype, {rows, cols}, 4);
  std::vector<double> expected(static_cast<size_t>(rows), 0);
  const std::vector<double> values = x.ToDoubles();
  for (size_t i = 0; i < values.size(); ++i) {
    double& row = expected[i / static_cast<size_t>(cols)];
    row = std::max(row, std::abs(values[i]));
  }
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor of_rows = HostTensor::Filled(DType::kF32, {rows}, -1);
    AbsMax({.x = x, .y = of_rows}, stream);
    EXPECT_EQ(of_rows.ToDoubles(), expected);
    const HostTensor of_all = HostTensor::Filled(DType::kF32, {1}, -1);
    AbsMax({.x = x, .y = of_all}, stream);
    EXPECT_EQ(of_all.ToDoubles()[0], *std::max_element(expected.begin(), expected.end()));
    return of_rows.Bytes();
  });
}

// Also of a part that does not begin aligned.
TEST_P(AbsMaxTest, SameBitsAsOnCpu) {
  const int64_t rows = GetParam().dim(0);
  const int64_t cols = GetParam().dim(1);
  const HostTensor x = HostTensor::Normal(GetParam().dtype, {rows, cols}, 5);
  const TensorView flat = x.view().Reshape({rows * cols});
  const TensorView part = rows * cols > 1 ? flat.Slice(1, rows * cols - 1) : flat;
  testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
    const HostTensor of_rows = HostTensor::Filled(DType::kF32, {rows}, -1);
    const HostTensor of_part = HostTensor::Filled(DType::kF32, {1}, -1);
    AbsMax({.x = x, .y = of_rows}, stream);
    AbsMax({.x = part, .y = of_part}, stream);
    std::vector<uint8_t> all = of_rows.Bytes();
    const std::vector<uint8_t> more = of_part.Bytes();
    all.insert(all.end(), more.begin(), more.end());
    return all;
  });
}

TEST(AbsMaxTest, InfinityAndNan) {
  testing::TestStream stream(1);
  const double infinity = std::numeric_limits<double>::infinity();
  const HostTensor x = HostTensor::Of(DType::kF32, {2, 2}, {1, -infinity, infinity, -std::nan("")});
  const HostTensor y(DType::kF32, {2});
  AbsMax({.x = x, .y = y}, stream);
  EXPECT_EQ(y.ToDoubles()[0], infinity);
  EXPECT_TRUE(std::isnan(y.ToDoubles()[1]));
}

}  // namespace
}  // namespace trainyard::kernels
