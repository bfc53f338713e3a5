#include "kernels/transform/transpose.h"

#include "gtest/gtest.h"
#include "kernels/core/dispatch.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"
#include "kernels/transform/hadamard.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;
using testing::OpCase;

// x^T by the definition.
HostTensor Transposed(const HostTensor& x) {
  const int64_t rows = x.view().dim(0);
  const int64_t cols = x.view().dim(1);
  HostTensor y(x.view().dtype(), {cols, rows});
  DispatchFloat(x.view().dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) y.as<T>()[c * rows + r] = x.as<T>()[r * cols + c];
    }
  });
  return y;
}

class TransposeTest : public ::testing::TestWithParam<OpCase> {
 protected:
  const int64_t rows_ = GetParam().dim(0);
  const int64_t cols_ = GetParam().dim(1);
  const HostTensor x_ = HostTensor::Normal(GetParam().dtype, {rows_, cols_}, 1);
};

// Exact; extents that fill no tile.
TEST_P(TransposeTest, Plain) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor y = HostTensor::Filled(GetParam().dtype, {cols_, rows_}, 9);
    Transpose({.x = x_, .y = y}, stream);
    EXPECT_EQ(y.Bytes(), Transposed(x_).Bytes());
    return y.Bytes();
  });
}
INSTANTIATE_TEST_SUITE_P(
    All, TransposeTest,
    ::testing::ValuesIn(testing::OpCases({{1, 1}, {1, 40}, {7, 3}, {64, 32}, {65, 33}, {136, 72}, {200, 77}})),
    testing::OpCaseName);

class RotatedTransposeTest : public TransposeTest {};

// Bit for bit the Hadamard op on the transposed matrix, to either dtype, with signs of one group or of all rows.
TEST_P(RotatedTransposeTest, EqualsHadamardOfTheTranspose) {
  const int64_t group = GetParam().dim(2);
  const HostTensor transposed = Transposed(x_);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t period : {int64_t{0}, group, rows_}) {
      testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
        const HostTensor signs(DType::kF32, {period});
        RandomSigns({.signs = signs, .random = {.seed = 3, .purpose = kRandomTest}}, stream);
        const TensorView optional = period == 0 ? TensorView() : signs.view();
        const HostTensor y = HostTensor::Filled(dtype, {cols_, rows_}, 9), expected(dtype, {cols_, rows_});
        Transpose({.x = x_, .y = y, .group = group, .signs = optional}, stream);
        Hadamard({.x = transposed, .y = expected, .group = group, .signs = optional}, stream);
        EXPECT_EQ(y.Bytes(), expected.Bytes());
        return y.Bytes();
      });
    }
  }
}
TEST_P(RotatedTransposeTest, SameBitsAsOnTheCpu) {
  testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
    const HostTensor signs(DType::kF32, {rows_});
    RandomSigns({.signs = signs, .random = {.seed = 5, .purpose = kRandomTest}}, stream);
    const HostTensor y = HostTensor::Filled(DType::kBF16, {cols_, rows_}, 9);
    Transpose({.x = x_, .y = y, .group = GetParam().dim(2), .signs = signs}, stream);
    return y.Bytes();
  });
}
INSTANTIATE_TEST_SUITE_P(
    All, RotatedTransposeTest,
    ::testing::ValuesIn(testing::OpCases({{16, 1, 16}, {96, 37, 32}, {128, 64, 64}, {384, 40, 128}})),
    testing::OpCaseName);

}  // namespace
}  // namespace trainyard::kernels
