// A checkpoint that was damaged after its commit is not loaded: the attempt falls back to the one before.
#include <signal.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/undisturbed.h"

namespace trainyard::testing_support {
namespace {

namespace fs = std::filesystem;

// The newest committed checkpoint's folders, oldest first.
std::vector<fs::path> Checkpoints(const std::string& job_root) {
  std::vector<fs::path> found;
  for (const auto& entry : fs::recursive_directory_iterator(job_root)) {
    if (entry.path().filename() == "manifest.json") found.push_back(entry.path().parent_path());
  }
  std::sort(found.begin(), found.end(),
            [](const fs::path& a, const fs::path& b) { return a.filename() < b.filename(); });
  return found;
}

TEST(CheckpointFaultTest, TruncatedShardFallsBackToTheCheckpointBefore) {
  Cluster cluster({.workers = 2});
  cluster.MakeData();
  const RunRecord expected = RunUndisturbed(cluster, "undisturbed");
  ASSERT_TRUE(RemoveTree(cluster.job_root() + "/default").ok());

  const std::string job = cluster.Submit(Cluster::TinyJob("disturbed", kSteps));
  ASSERT_TRUE(cluster.WaitForStep(job, 150)) << cluster.Logs();
  // Suspend leaves a checkpoint and stops the ranks, so that the damage below cannot race with a newer checkpoint.
  ASSERT_EQ(cluster.Trainyard({"suspend", job}).exit_code, 0);
  ASSERT_TRUE(cluster.WaitForState(job, "JOB_STATE_SUSPENDED"));
  const std::vector<fs::path> checkpoints = Checkpoints(cluster.job_root());
  ASSERT_GE(checkpoints.size(), 2u);
  const std::string committed = cluster.Get(job).value("committedStep", "");
  fs::path shard;
  for (const auto& entry : fs::directory_iterator(checkpoints.back())) {
    if (entry.path().extension() == ".safetensors") shard = entry.path();
  }
  ASSERT_FALSE(shard.empty());
  fs::resize_file(shard, fs::file_size(shard) / 2);
  ASSERT_EQ(cluster.Trainyard({"resume", job}).exit_code, 0);

  ExpectSameAs(expected, cluster, job);
  const auto attempts = cluster.Get(job)["attempts"];
  EXPECT_LT(std::stoll(attempts.back().value("restoredStep", "0")), std::stoll(committed))
      << "the damaged checkpoint was loaded";
  EXPECT_GT(std::stoll(attempts.back().value("restoredStep", "0")), 0);
  ExpectNoRunnerLeft(cluster);
}

}  // namespace
}  // namespace trainyard::testing_support
