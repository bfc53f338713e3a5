#include "worker/ckpt/retention.h"

#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "worker/ckpt/manifest.h"

namespace trainyard::ckpt {
namespace {

v1::CheckpointManifest At(int attempt, uint64_t fence, int64_t step) {
  v1::CheckpointManifest manifest;
  manifest.set_step(step);
  manifest.set_directory(CheckpointDirectory(attempt, fence, step));
  return manifest;
}

TEST(RetentionTest, KeepsTheNewest) {
  std::vector<v1::CheckpointManifest> committed = {At(2, 9, 30), At(2, 9, 20), At(1, 7, 10)};
  EXPECT_TRUE(DropOld(3, &committed).empty());
  const auto old = DropOld(1, &committed);
  ASSERT_EQ(old.size(), 2u);
  EXPECT_EQ(old[0].step(), 20);
  EXPECT_EQ(old[1].step(), 10);
  ASSERT_EQ(committed.size(), 1u);
  EXPECT_EQ(committed[0].step(), 30);
}

TEST(RetentionTest, StaleIsWhatAnEarlierFenceLeftAndNoListNames) {
  TempDir root;
  for (const char* folder :
       {"attempt-1-fence-7/checkpoints/step-00000010", "attempt-1-fence-7/checkpoints/step-00000020",
        "attempt-1-fence-7/checkpoints/other", "attempt-2-fence-9/checkpoints/step-00000020",
        "attempt-3-fence-12/checkpoints/step-00000020", "attempt-1-fence-7/model",
        "attempt-x/checkpoints/step-00000001", "model/checkpoints/step-00000001"}) {
    ASSERT_OK(MakeDirs(root.Join(folder)));
  }
  // Attempt 2 asks: its own and the later attempt's folders are not its business.
  EXPECT_EQ(StaleCheckpoints(root.path(), 9, {At(1, 7, 10)}),
            std::vector<std::string>({"attempt-1-fence-7/checkpoints/step-00000020"}));
  EXPECT_TRUE(StaleCheckpoints(root.Join("nowhere"), 9, {}).empty());
}

TEST(ManifestTest, AttemptDirectoriesParseExactly) {
  int32_t attempt = 0;
  uint64_t fence = 0;
  EXPECT_TRUE(ParseAttemptDirectory(AttemptDirectory(12, 0xFFFFFFFFFFFFFFFFu), &attempt, &fence));
  EXPECT_EQ(attempt, 12);
  EXPECT_EQ(fence, 0xFFFFFFFFFFFFFFFFu);
  for (const char* name : {"attempt-1", "attempt-1-fence-", "attempt-1-fence-2x", "attempt-01-fence-2", "x"}) {
    EXPECT_FALSE(ParseAttemptDirectory(name, &attempt, &fence)) << name;
  }
  EXPECT_EQ(CheckpointDirectory(1, 7, 100), "attempt-1-fence-7/checkpoints/step-00000100");
}

}  // namespace
}  // namespace trainyard::ckpt
