#include "kernels/transform/take_lines.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using ::testing::ElementsAre;
using testing::HostTensor;
using Values = std::vector<double>;

HostTensor Take(const HostTensor& x, int axis, const Values& list, Stream& stream) {
  const int64_t count = static_cast<int64_t>(list.size());
  const HostTensor indices = HostTensor::Of(DType::kI32, {count}, list);
  const int64_t rows = axis == 0 ? count : x.view().dim(0);
  const int64_t cols = axis == 1 ? count : x.view().dim(1);
  HostTensor y = HostTensor::Filled(x.view().dtype(), {rows, cols}, -7);
  TakeLines({.x = x, .indices = indices, .y = y, .axis = axis}, stream);
  return y;
}

TEST(TakeLines, ColumnsRowsAndNothing) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {2, 3}, {1, 2, 3, 4, 5, 6});
  EXPECT_THAT(Take(x, 1, {2, -1, 0, 2}, stream).ToDoubles(), ElementsAre(3, 0, 1, 3, 6, 0, 4, 6));
  EXPECT_THAT(Take(x, 0, {1, -1, 1}, stream).ToDoubles(), ElementsAre(4, 5, 6, 0, 0, 0, 4, 5, 6));
  EXPECT_THAT(Take(x, 0, {}, stream).ToDoubles(), ElementsAre());
}

TEST(TakeLines, Bf16) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kBF16, {2, 3}, {1, 2, 3, 4, 5, 6});
  EXPECT_THAT(Take(x, 1, {2, -1, 0}, stream).ToDoubles(), ElementsAre(3, 0, 1, 6, 0, 4));
  EXPECT_THAT(Take(x, 0, {1, -1}, stream).ToDoubles(), ElementsAre(4, 5, 6, 0, 0, 0));
}

// Rows that are whole 16-byte packs, and such that are not, of both dtypes.
TEST(TakeLines, SameBitsAsOnTheCpu) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t cols : {8, 12, 520}) {
      const HostTensor x = HostTensor::Normal(dtype, {9, cols}, 2);
      for (const int axis : {0, 1}) {
        testing::ExpectSameBitsAsOnCpu([&](Stream& stream) { return Take(x, axis, {7, -1, 3, 3, 0}, stream).Bytes(); });
      }
    }
  }
}

TEST(TakeLines, EveryElementOfALargeMatrix) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {301, 67}, 1);
  Values list;
  for (int i = 0; i < 40; ++i) list.push_back(i % 7 == 3 ? -1 : (i * 29) % 67);
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) { return Take(x, 1, list, stream).Bytes(); });
  testing::ExpectSameBitsAsOnCpu([&](Stream& stream) { return Take(x, 0, list, stream).Bytes(); });
  testing::TestStream stream(3);
  const HostTensor columns = Take(x, 1, list, stream);
  const HostTensor rows = Take(x, 0, list, stream);
  for (size_t q = 0; q < list.size(); ++q) {
    const int64_t from = static_cast<int64_t>(list[q]), to = static_cast<int64_t>(q);
    for (int64_t i = 0; i < 301; ++i) {
      ASSERT_EQ(columns.as<float>()[i * 40 + to], from < 0 ? 0 : x.as<float>()[i * 67 + from]);
    }
    for (int64_t j = 0; j < 67; ++j) {
      ASSERT_EQ(rows.as<float>()[to * 67 + j], from < 0 ? 0 : x.as<float>()[from * 67 + j]);
    }
  }
}

}  // namespace
}  // namespace trainyard::kernels
