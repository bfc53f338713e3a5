#include "kernels/quant/fp4_groups.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/core/philox.h"
#include "kernels/quant/e2m1.h"
#include "kernels/quant/number_format.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

// Every code with every finite scale; bf16 holds the values exactly where they are normal numbers.
void CheckAllScales(DType dtype, DType scale_dtype, int64_t group, int64_t scale_count, double (*scale_of)(int64_t)) {
  const HostTensor packed(DType::kU8, {scale_count, group / 2});
  const HostTensor scales(scale_dtype, {scale_count, 1});
  std::vector<double> expected;
  for (int64_t s = 0; s < scale_count; ++s) {
    static_cast<uint8_t*>(scales.view().data())[s] = static_cast<uint8_t>(s);
    for (int64_t i = 0; i < group; ++i) {
      const uint8_t code = static_cast<uint8_t>(i % 16);
      packed.as<uint8_t>()[(s * group + i) / 2] |= static_cast<uint8_t>(code << (i % 2 * 4));
      expected.push_back(static_cast<double>(E2M1Value(code)) * scale_of(s));
    }
  }
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor values = HostTensor::Filled(dtype, {scale_count, group}, 9);
    Fp4GroupsDequantize({.packed = packed, .scales = scales, .values = values}, stream);
    const std::vector<double> actual = values.ToDoubles();
    for (size_t i = 0; i < expected.size(); ++i) {
      const bool is_finite = std::abs(expected[i]) < 0x1p128;
      EXPECT_EQ(actual[i], is_finite ? expected[i] : std::copysign(INFINITY, expected[i])) << i;
    }
    return values.Bytes();
  });
}

TEST(Fp4GroupsTest, EveryCodeAndScale) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    CheckAllScales(dtype, DType::kU8, kMxGroup, 255,
                   [](int64_t s) { return std::ldexp(1.0, static_cast<int>(s) - 127); });
    CheckAllScales(dtype, DType::kF8E4M3, kNvGroup, 127,
                   [](int64_t s) { return static_cast<double>(WidenToFloat(Float8E4M3{static_cast<uint8_t>(s)})); });
  }
}

TEST(Fp4GroupsTest, NanScales) {
  testing::TestStream stream(1);
  const HostTensor packed(DType::kU8, {1, 16});
  const HostTensor values(DType::kF32, {1, 32});
  const HostTensor e8m0(DType::kU8, {1, 1});
  e8m0.as<uint8_t>()[0] = 255;
  Fp4GroupsDequantize({.packed = packed, .scales = e8m0, .values = values}, stream);
  for (const double value : values.ToDoubles()) EXPECT_TRUE(std::isnan(value));
  const HostTensor e4m3(DType::kF8E4M3, {1, 2});
  e4m3.as<Float8E4M3>()[1].bits = 0x7F;
  Fp4GroupsDequantize({.packed = packed, .scales = e4m3, .values = values}, stream);
  EXPECT_EQ(values.ToDoubles()[15], 0);
  EXPECT_TRUE(std::isnan(values.ToDoubles()[16]));
}

TEST(Fp4GroupsTest, SameBitsAsOnCpu) {
  constexpr int64_t kRows = 9, kCols = 416;
  const HostTensor packed(DType::kU8, {kRows, kCols / 2});
  const HostTensor e8m0(DType::kU8, {kRows, kCols / kMxGroup}), e4m3(DType::kF8E4M3, {kRows, kCols / kNvGroup});
  const PhiloxKey key{.seed = 6, .purpose = kRandomTest};
  const auto fill = [&](const HostTensor& tensor, uint32_t limit) {
    auto* const bytes = static_cast<uint8_t*>(tensor.view().data());
    for (int64_t i = 0; i < tensor.view().bytes(); ++i) {
      bytes[i] = static_cast<uint8_t>(RandomWord(key, static_cast<uint64_t>(i)) % limit);
    }
  };
  fill(packed, 256);
  fill(e8m0, 255);  // no NaN
  fill(e4m3, 127);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const HostTensor* scales : {&e8m0, &e4m3}) {
      testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
        const HostTensor values = HostTensor::Filled(dtype, {kRows, kCols}, 9);
        Fp4GroupsDequantize({.packed = packed, .scales = *scales, .values = values}, stream);
        return values.Bytes();
      });
    }
  }
}

}  // namespace
}  // namespace trainyard::kernels
