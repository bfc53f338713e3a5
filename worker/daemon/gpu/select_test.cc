#include "worker/daemon/gpu/select.h"

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"

namespace trainyard::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Four GPUs "GPU-a" to "GPU-d"; the last one is cut by MIG.
std::vector<GpuIdentity> Present() {
  std::vector<GpuIdentity> gpus;
  for (int i = 0; i < 4; ++i) {
    GpuIdentity& gpu = gpus.emplace_back();
    gpu.index = i;
    gpu.uuid = absl::StrCat("GPU-", std::string(1, static_cast<char>('a' + i)));
    gpu.name = "Fake";
    gpu.is_mig = i == 3;
  }
  return gpus;
}

std::vector<int> Indices(const GpuSelection& selection) {
  std::vector<int> indices;
  for (const GpuIdentity& gpu : selection.gpus) indices.push_back(gpu.index);
  return indices;
}

TEST(SelectGpusTest, TakesAllButThoseCutByMigAndSaysSo) {
  for (const char* wanted : {"auto", "all"}) {
    ASSERT_OK_AND_ASSIGN(const GpuSelection selection, SelectGpus(wanted, Present(), 0));
    EXPECT_THAT(Indices(selection), ElementsAre(0, 1, 2));
    EXPECT_THAT(selection.skipped, ElementsAre(HasSubstr("GPU 3 (GPU-d, Fake): MIG mode is on")));
  }
  ASSERT_OK_AND_ASSIGN(const GpuSelection none, SelectGpus("none", Present(), 0));
  EXPECT_TRUE(none.gpus.empty());
}

TEST(SelectGpusTest, TakesThoseNamedByIndexOrUuidInTheDriversOrder) {
  ASSERT_OK_AND_ASSIGN(const GpuSelection selection, SelectGpus("GPU-c, 0", Present(), 0));
  EXPECT_THAT(Indices(selection), ElementsAre(0, 2));
  EXPECT_EQ(selection.skipped.size(), 2u);
}

TEST(SelectGpusTest, RefusesWhatIsNoGpuOrNamedTwiceOrCut) {
  const auto refused = [](const char* wanted) { return SelectGpus(wanted, Present(), 0); };
  EXPECT_THAT(refused("0,4"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'4' is neither an index in [0, 4)")));
  EXPECT_THAT(refused("GPU-x"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("'GPU-x'")));
  EXPECT_THAT(refused("0,"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("''")));
  EXPECT_THAT(refused("1,GPU-b"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("names GPU 1 again")));
  EXPECT_THAT(refused("3"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("MIG")));
}

TEST(SelectGpusTest, GpusThatShouldBeThereAndAreNotHaveAPlace) {
  ASSERT_OK_AND_ASSIGN(const GpuSelection selection, SelectGpus("auto", Present(), 6));
  EXPECT_THAT(Indices(selection), ElementsAre(0, 1, 2, 4, 5));
  EXPECT_EQ(selection.gpus[3].error, "the driver lists 4 GPUs where 6 are expected");
  EXPECT_EQ(selection.gpus[3].uuid, "");
}

}  // namespace
}  // namespace trainyard::daemon
