// Faults of worker daemons: kill -9, a pause longer than the lease, two daemons on one state folder.
#include <signal.h>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/undisturbed.h"

namespace trainyard::testing_support {
namespace {

using ::testing::HasSubstr;

TEST(DaemonFaultTest, KilledDaemonLeavesNoRunnerAndItsSuccessorResumesTheJob) {
  Cluster cluster;
  cluster.MakeData();
  const RunRecord expected = RunUndisturbed(cluster, "undisturbed");

  const std::string job = cluster.Submit(Cluster::TinyJob("disturbed", kSteps));
  ASSERT_TRUE(cluster.WaitForStep(job, 150)) << cluster.Logs();
  cluster.worker(1).Signal(SIGKILL);
  EXPECT_TRUE(WaitUntil([&] { return cluster.Runners().size() <= 1; }, absl::Seconds(5)))
      << "runners outlived their killed daemon";
  cluster.StartWorker(1);

  ExpectSameAs(expected, cluster, job);
  EXPECT_GE(Attempts(cluster, job), 2);
  ExpectNoRunnerLeft(cluster);
}

// The zombie of scenario 6: its worker is given up after the lease, the job goes on elsewhere, and what wakes up later
// commits nothing, stops, and only then frees its slot.
TEST(DaemonFaultTest, WorkerPausedBeyondItsLeaseIsReplacedAndFencedOff) {
  Cluster cluster({.workers = 3});
  cluster.MakeData();
  const RunRecord expected = RunUndisturbed(cluster, "undisturbed");

  const std::string job = cluster.Submit(Cluster::TinyJob("disturbed", kSteps));
  ASSERT_TRUE(cluster.WaitForStep(job, 150)) << cluster.Logs();
  const auto places = cluster.Get(job)["attempts"][0]["places"];
  const auto workers = nlohmann::json::parse(cluster.Trainyard({"workers", "-o", "json"}).out)["workers"];
  int paused = -1;
  for (int i = 0; i < 3; ++i) {
    const std::string id = ReadFile(cluster.worker_dir(i) + "/worker_id").value_or("");
    if (!id.empty() && places[1].value("workerId", "") == id.substr(0, id.find('\n'))) paused = i;
  }
  ASSERT_GE(paused, 0) << places.dump() << workers.dump();
  // The daemon and what it started, as a paused virtual machine would.
  const std::vector<pid_t> stopped = Descendants(cluster.worker(paused).pid());
  for (pid_t pid : stopped) kill(pid, SIGSTOP);

  ASSERT_TRUE(WaitUntil([&] { return Attempts(cluster, job) == 2; }, absl::Seconds(60))) << cluster.Logs();
  EXPECT_EQ(cluster.Get(job)["attempts"][0]["state"], "ATTEMPT_STATE_LOST");
  ASSERT_TRUE(cluster.WaitForState(job, "JOB_STATE_RUNNING"));
  for (pid_t pid : stopped) kill(pid, SIGCONT);

  ExpectSameAs(expected, cluster, job);
  ExpectNoRunnerLeft(cluster);
  EXPECT_TRUE(WaitUntil(
      [&] {
        const auto now = nlohmann::json::parse(cluster.Trainyard({"workers", "-o", "json"}).out)["workers"];
        int free_slots = 0;
        for (const auto& worker : now) {
          for (const auto& slot : worker["slots"]) {
            free_slots += slot.value("type", "") == "SLOT_TYPE_CPU" && slot.value("state", "") == "SLOT_STATE_FREE";
          }
        }
        return free_slots == 3;
      },
      absl::Seconds(30)))
      << cluster.Trainyard({"workers"}).out;
}

TEST(DaemonFaultTest, SecondDaemonOnTheSameStateIsRefusedWithTheHolder) {
  Cluster cluster;
  const CommandResult second =
      RunCommand({ProgramPath("worker/daemon/trainyard-worker"), "--coordinator", cluster.coordinator_address(),
                  "--state_dir", cluster.worker_dir(0), "--job_root", cluster.job_root(), "--data_root", cluster.dir(),
                  "--cpu_slots", "1", "--address", "127.0.0.1", "--metrics_listen", "127.0.0.1:0"},
                 {}, absl::Seconds(20));
  EXPECT_GT(second.exit_code, 0) << second.err;
  EXPECT_THAT(second.err, HasSubstr(std::to_string(cluster.worker(0).pid())));
  // The first is not disturbed.
  const auto workers = nlohmann::json::parse(cluster.Trainyard({"workers", "-o", "json"}).out)["workers"];
  ASSERT_EQ(workers.size(), 2u);
  for (const auto& worker : workers) EXPECT_EQ(worker["state"], "WORKER_STATE_READY");
}

}  // namespace
}  // namespace trainyard::testing_support
