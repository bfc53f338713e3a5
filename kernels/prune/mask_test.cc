#include "kernels/prune/mask.h"

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

// Bits that look random; those past the last element are 0.
HostTensor RandomMask(int64_t elements, uint64_t seed) {
  HostTensor mask(DType::kU8, {MaskBytes(elements)});
  const HostTensor draws = testing::RandomTokens(elements, 3, seed);
  for (int64_t i = 0; i < elements; ++i) {
    if (draws.as<int32_t>()[i] == 0) mask.as<uint8_t>()[i / 8] |= static_cast<uint8_t>(1 << (i % 8));
  }
  return mask;
}

bool BitOf(const HostTensor& mask, int64_t i) {
  return (mask.as<uint8_t>()[i / 8] >> (i % 8)) & 1;
}

TEST(MaskTest, AppliesAndCompares) {
  for (const int64_t elements : {1, 8, 13, 511, 513, 30013}) {
    const HostTensor a = RandomMask(elements, 1), b = RandomMask(elements, 2);
    testing::TestStream stream(2);
    const HostTensor counts(DType::kU32, {3});
    MaskCompare({.a = a, .b = b, .counts = counts}, stream);
    uint32_t expected[3] = {};
    for (int64_t i = 0; i < elements; ++i) {
      expected[0] += BitOf(a, i) != BitOf(b, i);
      expected[1] += BitOf(a, i) && BitOf(b, i);
      expected[2] += BitOf(a, i) || BitOf(b, i);
    }
    for (int i = 0; i < 3; ++i) EXPECT_EQ(counts.as<uint32_t>()[i], expected[i]) << elements;

    const HostTensor replaced = a.Copy();
    const HostTensor again(DType::kU32, {3});
    MaskReplace({.mask = replaced, .next = b, .counts = again}, stream);
    EXPECT_EQ(replaced.Bytes(), b.Bytes());
    EXPECT_EQ(again.Bytes(), counts.Bytes());

    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const HostTensor x = HostTensor::Normal(dtype, {elements}, 3);
      std::vector<double> kept = x.ToDoubles();
      for (int64_t i = 0; i < elements; ++i) {
        if (!BitOf(a, i)) kept[static_cast<size_t>(i)] = 0;
      }
      MaskApply({.x = x, .mask = a}, stream);
      EXPECT_EQ(x.ToDoubles(), kept) << elements;
    }
  }
}

TEST(MaskTest, AllDevicesGiveTheBitsOfTheCpu) {
  for (const int64_t elements : {1, 13, 5013}) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      const HostTensor a = RandomMask(elements, 1), b = RandomMask(elements, 2), counts(DType::kU32, {3});
      const HostTensor x = HostTensor::Normal(DType::kBF16, {elements}, 3);
      MaskApply({.x = x, .mask = a}, stream);
      MaskReplace({.mask = a, .next = b, .counts = counts}, stream);
      std::vector<uint8_t> bytes = x.Bytes();
      for (const HostTensor* tensor : {&a, &counts}) {
        const std::vector<uint8_t> more = tensor->Bytes();
        bytes.insert(bytes.end(), more.begin(), more.end());
      }
      return bytes;
    });
  }
}

}  // namespace
}  // namespace trainyard::kernels
