#include "kernels/pointwise/elementwise.h"

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
using Values = std::vector<double>;

class ElementwiseTest : public ::testing::TestWithParam<OpCase> {
 protected:
  const DType dtype_ = GetParam().dtype;
  const std::vector<int64_t>& shape_ = GetParam().shape;
  const HostTensor a_ = HostTensor::Normal(dtype_, shape_, 1);
  const HostTensor b_ = HostTensor::Normal(dtype_, shape_, 2);
  const testing::Tolerance tolerance_ = testing::ToleranceFor(dtype_);
  testing::TestStream stream_{2};
};

TEST_P(ElementwiseTest, AddAndScale) {
  const HostTensor y = a_.Copy();
  Add({.a = y, .b = b_, .y = y}, stream_);  // in place
  Values expected = a_.ToDoubles();
  const Values b = b_.ToDoubles();
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += b[i];
  EXPECT_THAT(y.ToDoubles(), AllNear(expected, tolerance_));

  const HostTensor scaled = HostTensor::Filled(dtype_, shape_, 99);
  Scale({.x = b_, .y = scaled, .scale = -0.3f}, stream_);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] = double{-0.3f} * b[i];
  EXPECT_THAT(scaled.ToDoubles(), AllNear(expected, tolerance_));
}

TEST_P(ElementwiseTest, AccumulateIntoEitherDtype) {
  for (const DType y_dtype : {DType::kF32, DType::kBF16}) {
    const HostTensor y = HostTensor::Filled(y_dtype, shape_, 0.5);
    Accumulate({.x = a_, .y = y, .scale = 2}, stream_);
    Values expected = a_.ToDoubles();
    for (double& value : expected) value = 0.5 + 2 * value;
    EXPECT_THAT(y.ToDoubles(), AllNear(expected, testing::ToleranceFor(y_dtype)));
  }
}

TEST_P(ElementwiseTest, ConvertAndFill) {
  for (const DType y_dtype : {DType::kF32, DType::kBF16}) {
    const HostTensor y = HostTensor::Filled(y_dtype, shape_, 99);
    Convert({.x = a_, .y = y}, stream_);
    // HostTensor rounds values as its test says, so the conversion is exact against it.
    EXPECT_EQ(y.Bytes(), HostTensor::Of(y_dtype, shape_, a_.ToDoubles()).Bytes());
    Fill({.y = y, .value = -1.5f}, stream_);
    EXPECT_EQ(y.ToDoubles(), Values(static_cast<size_t>(y.view().size()), -1.5));
  }
}

TEST(ElementwiseFill, ZerosAnyDtype) {
  testing::TestStream stream(2);
  const HostTensor indices = HostTensor::Of(DType::kI32, {3}, {1, -1, 7});
  Fill({.y = indices}, stream);
  EXPECT_EQ(indices.ToDoubles(), Values(3, 0.0));
  const HostTensor codes(DType::kU8, {5});
  std::fill_n(codes.as<uint8_t>(), 5, uint8_t{9});
  Fill({.y = codes}, stream);
  EXPECT_EQ(codes.Bytes(), std::vector<uint8_t>(5, 0));
}

// Parts of tensors begin anywhere, and no vector may reach beyond their end.
TEST(ElementwiseParts, BeginAtAnyElement) {
  testing::TestStream stream(2);
  const HostTensor x = HostTensor::Of(DType::kBF16, {40}, [] {
    Values values(40);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(i);
    return values;
  }());
  for (const int64_t first : {0, 1, 8}) {
    const int64_t count = 37 - first;
    const TensorView part(x.as<BFloat16>() + first, DType::kBF16, {count});
    const HostTensor y = HostTensor::Filled(DType::kBF16, {40}, 99);
    Values expected(40, 99);
    for (int64_t i = 0; i < count; ++i) expected[static_cast<size_t>(1 + i)] = 2.0 * static_cast<double>(first + i);
    Add({.a = part, .b = part, .y = TensorView(y.as<BFloat16>() + 1, DType::kBF16, {count})}, stream);
    EXPECT_EQ(y.ToDoubles(), expected) << first;
    const HostTensor copy = HostTensor::Filled(DType::kBF16, {40}, 99);
    for (int64_t i = 0; i < count; ++i) expected[static_cast<size_t>(1 + i)] = static_cast<double>(first + i);
    Convert({.x = part, .y = TensorView(copy.as<BFloat16>() + 1, DType::kBF16, {count})}, stream);
    EXPECT_EQ(copy.ToDoubles(), expected) << first;
  }
}

TEST_P(ElementwiseTest, BiasGradientSumsColumns) {
  const size_t cols = static_cast<size_t>(GetParam().dim(1));
  for (const bool accumulate : {false, true}) {
    for (const DType db_dtype : {dtype_, DType::kF32}) {
      const HostTensor db = HostTensor::Filled(db_dtype, {GetParam().dim(1)}, 0.5);
      BiasGradient({.dy = a_, .db = db, .accumulate = accumulate}, stream_);
      Values expected(cols, accumulate ? 0.5 : 0.0);
      const Values a = a_.ToDoubles();
      for (size_t i = 0; i < a.size(); ++i) expected[i % cols] += a[i];
      EXPECT_THAT(db.ToDoubles(), AllNear(expected, testing::ToleranceForSum(db_dtype, GetParam().dim(0))));
    }
  }
}

TEST_P(ElementwiseTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor db(DType::kF32, {GetParam().dim(1)});
    BiasGradient({.dy = a_, .db = db}, stream);
    return db.Bytes();
  });
}

INSTANTIATE_TEST_SUITE_P(
    All, ElementwiseTest,
    ::testing::ValuesIn(testing::OpCases({{1, 1}, {1, 7}, {3, 64}, {0, 4}, {200, 301}, {1100, 24}})),
    testing::OpCaseName);

}  // namespace
}  // namespace trainyard::kernels
