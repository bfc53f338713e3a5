#include "kernels/codec/hash64.h"

#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace trainyard::kernels {
namespace {

TEST(Hash64Test, IsXxh3) {
  EXPECT_EQ(Hash64("", 0), 0x2D06800538D394C2u);  // the value of XXH3's specification
}

TEST(Hash64Test, EveryBitPlaceAndTheOrderCount) {
  for (const size_t bytes : {1, 4, 16, 17, 128, 240, 241, 1000}) {
    std::vector<uint8_t> buffer(bytes, 0);
    std::set<uint64_t> seen = {Hash64(buffer.data(), bytes)};
    for (size_t bit = 0; bit < 8 * bytes; ++bit) {
      buffer[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
      EXPECT_TRUE(seen.insert(Hash64(buffer.data(), bytes)).second) << bit;
      buffer[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    }
    EXPECT_TRUE(seen.insert(Hash64(buffer.data(), bytes - 1)).second) << "zeros of another length";
    EXPECT_TRUE(seen.insert(Hash64(buffer.data(), bytes, 1)).second);
  }
  const std::vector<float> a = {1, 2, 3}, b = {2, 1, 3};
  EXPECT_NE(Hash64(a.data(), 12), Hash64(b.data(), 12));
}

}  // namespace
}  // namespace trainyard::kernels
