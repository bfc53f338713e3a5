#include "kernels/quant/packed_rows.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/core/philox.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;
using testing::OpCase;

HostTensor Bytes(int64_t rows, int64_t cols, const std::vector<uint8_t>& values) {
  HostTensor tensor(DType::kU8, {rows, cols});
  std::copy(values.begin(), values.end(), tensor.as<uint8_t>());
  return tensor;
}

TEST(PackedRowsTest, KnownBytes) {
  testing::TestStream stream(1);
  const HostTensor codes = Bytes(2, 3, {1, 2, 3, 0xFF, 0xF8, 7});  // the second row: -1, -8, 7
  const HostTensor packed(DType::kU8, {2, 2});
  PackRows({.codes = codes, .packed = packed, .bits = 4}, stream);
  EXPECT_EQ(packed.Bytes(), (std::vector<uint8_t>{0x21, 0x03, 0x8F, 0x07}));
}

class PackedRowsBitsTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Bits, PackedRowsBitsTest, ::testing::Range(1, 9));

// Every code of the width, as a number with and without sign, in rows of any length.
TEST_P(PackedRowsBitsTest, EveryCodeComesBack) {
  const int bits = GetParam();
  testing::TestStream stream(2);
  for (const int64_t cols : {1, 7, 8, 9, 255, 1024, 2049}) {
    const HostTensor codes(DType::kU8, {3, cols});
    std::vector<uint8_t> is_signed, is_unsigned;
    for (int64_t i = 0; i < 3 * cols; ++i) {
      const int value = static_cast<int>(i % (1 << bits));
      const int negative = value >= (1 << (bits - 1)) ? value - (1 << bits) : value;
      is_unsigned.push_back(static_cast<uint8_t>(value));
      is_signed.push_back(static_cast<uint8_t>(negative));
      codes.as<uint8_t>()[i] = static_cast<uint8_t>(negative);
    }
    const HostTensor packed(DType::kU8, {3, PackedBytes(cols, bits)});
    PackRows({.codes = codes, .packed = packed, .bits = bits}, stream);
    const HostTensor back(DType::kU8, {3, cols});
    UnpackRows({.packed = packed, .codes = back, .bits = bits}, stream);
    ASSERT_EQ(back.Bytes(), is_unsigned) << cols;
    UnpackRows({.packed = packed, .codes = back, .bits = bits, .is_signed = true}, stream);
    ASSERT_EQ(back.Bytes(), is_signed) << cols;
  }
}

TEST_P(PackedRowsBitsTest, SameBitsAsOnCpu) {
  const int bits = GetParam();
  const PhiloxKey key{.seed = 6, .purpose = kRandomTest};
  for (const int64_t cols : {1, 7, 8, 60, 513}) {
    const HostTensor codes(DType::kU8, {5, cols});
    for (int64_t i = 0; i < 5 * cols; ++i) {
      codes.as<uint8_t>()[i] = static_cast<uint8_t>(RandomWord(key, static_cast<uint64_t>(i)));
    }
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      const HostTensor packed(DType::kU8, {5, PackedBytes(cols, bits)}), back(DType::kU8, {5, cols});
      PackRows({.codes = codes, .packed = packed, .bits = bits}, stream);
      UnpackRows({.packed = packed, .codes = back, .bits = bits, .is_signed = cols % 2 == 0}, stream);
      std::vector<uint8_t> all = packed.Bytes();
      const std::vector<uint8_t> more = back.Bytes();
      all.insert(all.end(), more.begin(), more.end());
      return all;
    });
  }
}

class MaskRowsTest : public ::testing::TestWithParam<OpCase> {};
INSTANTIATE_TEST_SUITE_P(All, MaskRowsTest, ::testing::ValuesIn(testing::OpCases({{1, 1}, {3, 9}, {2, 2051}})),
                         testing::OpCaseName);

TEST_P(MaskRowsTest, KeepsWhereTheBitIsSetAndDropsNan) {
  const int64_t rows = GetParam().dim(0);
  const int64_t cols = GetParam().dim(1);
  const HostTensor x = HostTensor::Normal(GetParam().dtype, {rows, cols}, 1);
  const HostTensor mask(DType::kU8, {rows, PackedBytes(cols, 1)});
  std::vector<double> expected = x.ToDoubles();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const bool keeps = (r + c * c) % 3 == 1;
      if (keeps) mask.as<uint8_t>()[r * mask.view().dim(1) + c / 8] |= static_cast<uint8_t>(1 << (c % 8));
      if (!keeps) expected[static_cast<size_t>(r * cols + c)] = 0;
    }
  }
  if (GetParam().dtype == DType::kF32) x.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor y = HostTensor::Filled(GetParam().dtype, {rows, cols}, 7);
    MaskRows({.x = x, .mask = mask, .y = y}, stream);
    EXPECT_EQ(y.ToDoubles(), expected);
    return y.Bytes();
  });
  testing::TestStream stream(1);
  MaskRows({.x = x, .mask = mask, .y = x}, stream);
  EXPECT_EQ(x.ToDoubles(), expected);
}

TEST_P(MaskRowsTest, SameBitsAsOnCpu) {
  const int64_t rows = GetParam().dim(0);
  const int64_t cols = GetParam().dim(1);
  const HostTensor x = HostTensor::Normal(GetParam().dtype, {rows, cols}, 2);
  const HostTensor mask(DType::kU8, {rows, PackedBytes(cols, 1)});
  const PhiloxKey key{.seed = 8, .purpose = kRandomTest};
  for (int64_t i = 0; i < mask.view().size(); ++i) {
    mask.as<uint8_t>()[i] = static_cast<uint8_t>(RandomWord(key, static_cast<uint64_t>(i)));
  }
  testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
    const HostTensor y = HostTensor::Filled(GetParam().dtype, {rows, cols}, 7);
    MaskRows({.x = x, .mask = mask, .y = y}, stream);
    return y.Bytes();
  });
}

}  // namespace
}  // namespace trainyard::kernels
