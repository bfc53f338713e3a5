#include "kernels/core/vec.h"

#include <cmath>

#include "gtest/gtest.h"

namespace trainyard::kernels {
namespace {

TEST(VecTest, WidthIsThatOfTheNarrowestType) {
  static_assert(kVecWidth<float> == 4 && kVecWidth<BFloat16> == 8 && kVecWidth<float, BFloat16> == 8);
  static_assert(sizeof(Vec<BFloat16, 8>) == 16 && alignof(Vec<BFloat16, 8>) == 16);
  static_assert(sizeof(Vec<float, 8>) == 32 && alignof(Vec<float, 8>) == 16);
  static_assert(alignof(Vec<BFloat16, 1>) == 2);
}

// What is stored is what FromFloat gives: ties, subnormals and infinities among the values.
TEST(VecTest, NarrowAndWidenRoundAsSingleElements) {
  alignas(16) float values[8] = {1.00390625f, 1.01171875f, -3e-39f, INFINITY, -0.0f, 3.4e38f, 1e-45f, -7.25f};
  alignas(16) BFloat16 stored[8];
  StoreVec(stored, Narrow<BFloat16>(LoadVec<8>(values)));
  const Vec<float, 8> wide = Widen(LoadVec<8>(stored));
  for (int e = 0; e < 8; ++e) {
    EXPECT_EQ(stored[e].bits, FromFloat<BFloat16>(values[e]).bits) << e;
    EXPECT_EQ(std::signbit(wide[e]), std::signbit(values[e])) << e;
    EXPECT_EQ(wide[e], ToFloat(stored[e])) << e;
  }
}

TEST(VecTest, AlignmentOfAllPointersCounts) {
  alignas(16) float values[8] = {};
  EXPECT_TRUE(AllVecAligned(values, values + 4, static_cast<const BFloat16*>(nullptr)));
  EXPECT_FALSE(AllVecAligned(values, values + 1));
}

TEST(VecDeathTest, MisalignedLoad) {
  alignas(16) float values[8] = {};
  EXPECT_DEATH((void)LoadVec<4>(values + 1), "alignof");
}

}  // namespace
}  // namespace trainyard::kernels
