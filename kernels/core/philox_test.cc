#include "kernels/core/philox.h"

#include <cmath>
#include <set>

#include "gtest/gtest.h"

namespace trainyard::kernels {
namespace {

// Known answers of Random123's kat_vectors for philox4x32-10.
TEST(PhiloxTest, KnownAnswers) {
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, EveryPartOfTheKeyMatters) {
  const PhiloxKey base{.seed = 1, .step = 2, .micro_step = 3, .purpose = 4, .tensor = 5};
  std::set<uint32_t> words = {RandomWord(base, 6)};
  for (PhiloxKey key : {PhiloxKey{2, 2, 3, 4, 5}, PhiloxKey{1ull << 40, 2, 3, 4, 5}, PhiloxKey{1, 3, 3, 4, 5},
                        PhiloxKey{1, 2, 4, 4, 5}, PhiloxKey{1, 2, 3, 5, 5}, PhiloxKey{1, 2, 3, 4, 6}}) {
    EXPECT_TRUE(words.insert(RandomWord(key, 6)).second);
  }
  for (uint64_t element = 7; element < 20; ++element) EXPECT_TRUE(words.insert(RandomWord(base, element)).second);
}

// Standard error of the mean of 2^20 normals is 1/1024, of the variance sqrt(2)/1024; bounds are five of them.
TEST(PhiloxTest, NormalsHaveUnitVariance) {
  const PhiloxKey key{.seed = 17, .purpose = kRandomTest};
  double sum = 0;
  double squares = 0;
  double fourth = 0;
  constexpr int kCount = 1 << 20;
  for (int i = 0; i < kCount; ++i) {
    const double x = RandomNormal(key, static_cast<uint64_t>(i));
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / kCount, 0, 5.0 / 1024);
  EXPECT_NEAR(squares / kCount, 1, 5 * std::sqrt(2.0) / 1024);
  EXPECT_NEAR(fourth / kCount, 3, 5 * std::sqrt(96.0) / 1024);
}

}  // namespace
}  // namespace trainyard::kernels
