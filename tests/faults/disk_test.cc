// A full disk, under the checkpoints and under the coordinator's store. Each case runs in a mount namespace of its own
// with a small tmpfs.
#include <signal.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/small_disk.h"
#include "tests/support/undisturbed.h"

namespace trainyard::testing_support {
namespace {

std::string g_disk;  // mounted by main, before any thread

class DiskFaultTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_FALSE(g_disk.empty());
    EmptyDisk(g_disk);
  }
  void TearDown() override { EmptyDisk(g_disk); }
};

// Checkpoints fail with a warning and leave no partial files behind, training goes on, and once there is room they
// succeed again.
TEST_F(DiskFaultTest, FullDiskUnderCheckpointsCostsCheckpointsNotTheRun) {
  Cluster cluster({.job_root = g_disk + "/jobs"});
  cluster.MakeData();
  const RunRecord expected = RunUndisturbed(cluster, "undisturbed");

  const std::string job = cluster.Submit(Cluster::TinyJob("disturbed", kSteps));
  ASSERT_TRUE(WaitUntil([&] { return cluster.Get(job).value("committedStep", "0") != "0"; }, absl::Seconds(60)));
  FillDisk(g_disk);
  const int64_t full_at = cluster.Step(job);
  ASSERT_TRUE(cluster.WaitForStep(job, full_at + 200)) << "training stopped with the disk full" << cluster.Logs();
  EmptyDisk(g_disk);
  const int64_t room_at = cluster.Step(job);
  EXPECT_TRUE(
      WaitUntil([&] { return std::stoll(cluster.Get(job).value("committedStep", "0")) > room_at; }, absl::Seconds(60)))
      << "no checkpoint after the disk had room again" << cluster.Logs();
  ExpectSameAs(expected, cluster, job);
  EXPECT_EQ(Attempts(cluster, job), 1);
}

// Scenario 14: every acknowledged submit is there after the space returns, none of the refused ones, and the
// coordinator answers reads all the while.
TEST_F(DiskFaultTest, FullDiskUnderTheStoreRefusesSubmitsAndLosesNone) {
  Cluster cluster({.coordinator_dir = g_disk + "/coordinator"});
  cluster.MakeData();
  std::set<std::string> acknowledged;
  std::set<std::string> refused;
  const auto submit = [&](const std::string& name) {
    const std::string path = cluster.dir() + "/" + name + ".yaml";
    ASSERT_TRUE(WriteFileAtomic(path, Cluster::TinyJob(name, 10)).ok());
    const CommandResult result = cluster.Trainyard({"submit", "-f", path, "--quiet"});
    (result.exit_code == 0 ? acknowledged : refused).insert(name);
  };
  for (int i = 0; i < 3; ++i) submit(absl::StrCat("before-", i));
  ASSERT_EQ(acknowledged.size(), 3u);
  FillDisk(g_disk);
  for (int i = 0; i < 12; ++i) {
    submit(absl::StrCat("full-", i));
    EXPECT_EQ(cluster.Trainyard({"list"}).exit_code, 0) << "reads stopped with the disk full";
  }
  EXPECT_FALSE(refused.empty()) << "the disk was not full";
  EmptyDisk(g_disk);
  ASSERT_TRUE(WaitUntil(
      [&] {
        submit("after");
        return acknowledged.count("after") == 1;
      },
      absl::Seconds(30)))
      << "submits are still refused with room on the disk" << cluster.Logs();
  refused.erase("after");

  cluster.coordinator().Signal(SIGKILL);
  cluster.StartCoordinator();
  std::set<std::string> present;
  const auto listing = nlohmann::json::parse(cluster.Trainyard({"list", "-o", "json"}).out);
  for (const auto& job : listing["jobs"]) present.insert(job.value("name", ""));
  for (const std::string& name : acknowledged) EXPECT_EQ(present.count(name), 1u) << name << " was lost";
  for (const std::string& name : refused) EXPECT_EQ(present.count(name), 0u) << name << " was refused, yet exists";
  for (const std::string& name : acknowledged) cluster.WaitForState(name, "JOB_STATE_SUCCEEDED");
}

}  // namespace
}  // namespace trainyard::testing_support

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  const trainyard::TempDir dir;
  const absl::Status mounted = trainyard::testing_support::MountSmallDisk(dir.Join("disk"), 24 << 20);
  if (!mounted.ok()) {
    std::fprintf(stderr, "SKIPPED: this user may not mount a tmpfs: %s\n", mounted.ToString().c_str());
    return 0;
  }
  trainyard::testing_support::g_disk = dir.Join("disk");
  return RUN_ALL_TESTS();
}
