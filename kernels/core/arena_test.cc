#include "kernels/core/arena.h"

#include "absl/status/statusor.h"
#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace trainyard::kernels {
namespace {

void AllocateSome(Arena& arena) {
  arena.Allocate("weights", DType::kF32, {3, 5});
  arena.Allocate("weights", DType::kBF16, {1});
  arena.Allocate("activations", DType::kU8, {64});
  arena.Allocate("activations", DType::kF32, {0});
}

TEST(ArenaTest, CountingPlansExactlyWhatReservingUses) {
  Arena counting = Arena::CountOnly();
  AllocateSome(counting);
  EXPECT_EQ(counting.plan(), (MemoryPlan{{"weights", 64 + 64}, {"activations", 64}}));
  ASSERT_OK_AND_ASSIGN(Arena real, Arena::Reserve(counting.used_bytes()));
  AllocateSome(real);
  EXPECT_EQ(real.plan(), counting.plan());
  EXPECT_EQ(real.used_bytes(), counting.used_bytes());
}

TEST(ArenaTest, ThePlanOfADeviceTellsWhatIsPinned) {
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    Arena arena = Arena::CountOnly(device);
    AllocateSome(arena);
    EXPECT_TRUE(arena.pinned_plan().empty());
    arena.AllocateShared("activations", DType::kI32, {17});
    EXPECT_EQ(arena.plan(), (MemoryPlan{{"weights", 64 + 64}, {"activations", 64 + 128}}));
    EXPECT_EQ(arena.pinned_plan(), device == Device::kCpu ? MemoryPlan() : (MemoryPlan{{"activations", 128}}));
    EXPECT_EQ(arena.used_bytes(), 5 * 64);
    const Arena moved = std::move(arena);
    EXPECT_EQ(moved.pinned_plan().size(), device == Device::kCpu ? 0u : 1u);
  }
}

TEST(ArenaTest, BlocksAreAlignedZeroAndDisjoint) {
  ASSERT_OK_AND_ASSIGN(Arena arena, Arena::Reserve(1024));
  TensorView a = arena.Allocate("a", DType::kF32, {3});
  TensorView b = arena.Allocate("b", DType::kF32, {3});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b.data()) % 64, 0u);
  EXPECT_GE(static_cast<char*>(b.data()) - static_cast<char*>(a.data()), a.bytes());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(a.as<float>()[i], 0.0f);
}

TEST(ArenaDeathTest, MoreThanPlannedIsOurBug) {
  ASSERT_OK_AND_ASSIGN(Arena arena, Arena::Reserve(64));
  arena.Allocate("a", DType::kF32, {16});
  EXPECT_DEATH(arena.Allocate("a", DType::kF32, {1}), "check failed");
}

TEST(ArenaTest, ImpossibleReservationIsAnErrorNotACrash) {
  EXPECT_THAT(Arena::Reserve(int64_t{1} << 62),
              StatusIs(absl::StatusCode::kResourceExhausted, ::testing::HasSubstr("4611686018427387904")));
}

}  // namespace
}  // namespace trainyard::kernels
