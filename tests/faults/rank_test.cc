// kill -9 of a rank: the whole gang is stopped at once, a new attempt resumes from the committed checkpoint, and the
// result is that of a run nobody disturbed.
#include <signal.h>

#include "gtest/gtest.h"
#include "tests/support/undisturbed.h"

namespace trainyard::testing_support {
namespace {

TEST(RankFaultTest, KilledRankIsReplacedAndTheRunEqualsTheUndisturbedOne) {
  Cluster cluster;
  cluster.MakeData();
  const RunRecord expected = RunUndisturbed(cluster, "undisturbed");

  const std::string job = cluster.Submit(Cluster::TinyJob("disturbed", kSteps));
  ASSERT_TRUE(cluster.WaitForStep(job, 150)) << cluster.Logs();
  const std::vector<pid_t> runners = cluster.Runners();
  ASSERT_EQ(runners.size(), 2u);
  kill(runners[1], SIGKILL);
  // CP-30: the peer does not wait for the collective's timeout.
  EXPECT_TRUE(WaitUntil(
      [&] {
        for (pid_t pid : cluster.Runners()) {
          if (pid == runners[0]) return false;
        }
        return true;
      },
      absl::Seconds(5)))
      << "the surviving rank of the broken gang still runs";

  ExpectSameAs(expected, cluster, job);
  EXPECT_EQ(Attempts(cluster, job), 2);
  const auto first = cluster.Get(job)["attempts"][0];
  EXPECT_EQ(first["state"], "ATTEMPT_STATE_FAILED");
  EXPECT_EQ(first["exit"]["failureClass"], "FAILURE_CLASS_INFRA");
  const auto second = cluster.Get(job)["attempts"][1];
  EXPECT_NE(second.value("restoredStep", "0"), "0") << "attempt 2 began from nothing";
  ExpectNoRunnerLeft(cluster);
}

}  // namespace
}  // namespace trainyard::testing_support
