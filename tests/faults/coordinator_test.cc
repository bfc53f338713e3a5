// kill -9 of the coordinator: training does not notice, no acknowledged job is lost, a repeated submit is one job.
#include <signal.h>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/undisturbed.h"

namespace trainyard::testing_support {
namespace {

using ::testing::HasSubstr;

class CoordinatorFaultTest : public ::testing::TestWithParam<int> {};

TEST_P(CoordinatorFaultTest, TrainingDoesNotNoticeAnOutage) {
  Cluster cluster;
  cluster.MakeData();
  const RunRecord expected = RunUndisturbed(cluster, "undisturbed");

  const std::string job = cluster.Submit(Cluster::TinyJob("disturbed", kSteps));
  ASSERT_TRUE(cluster.WaitForStep(job, 100)) << cluster.Logs();
  const std::vector<pid_t> runners = cluster.Runners();
  const std::string waiting = cluster.Submit(Cluster::TinyJob("waiting", 5));  // acknowledged: must survive
  cluster.coordinator().Signal(SIGKILL);
  Pause(absl::Seconds(GetParam()));
  cluster.StartCoordinator();

  ExpectSameAs(expected, cluster, job);
  EXPECT_EQ(Attempts(cluster, job), 1) << "an outage of the coordinator cost the job its attempt";
  EXPECT_EQ(runners.size(), 2u);
  cluster.WaitForState(waiting, "JOB_STATE_SUCCEEDED");
  ExpectNoRunnerLeft(cluster);
}

INSTANTIATE_TEST_SUITE_P(OutageSeconds, CoordinatorFaultTest, ::testing::Values(0, 20));

// Scenario 1: the client cannot know whether its submit took effect, so it repeats it with the same request id.
TEST(SubmitFaultTest, RepeatedSubmitIsOneJobAlsoAcrossACrash) {
  Cluster cluster;
  cluster.MakeData();
  const std::string id = "7b1c1a52-64ab-4f0e-9a39-4d1f6d6f2b11";
  const std::string first = cluster.Submit(Cluster::TinyJob("once", 5), {"--request-id", id});
  const std::string again = cluster.Submit(Cluster::TinyJob("once", 5), {"--request-id", id});
  EXPECT_EQ(first, again);
  cluster.coordinator().Signal(SIGKILL);
  cluster.StartCoordinator();
  const std::string after_crash = cluster.Submit(Cluster::TinyJob("once", 5), {"--request-id", id});
  EXPECT_EQ(first, after_crash);

  ASSERT_TRUE(WriteFileAtomic(cluster.dir() + "/other.yaml", Cluster::TinyJob("other", 5)).ok());
  const CommandResult reused = cluster.Trainyard({"submit", "-f", cluster.dir() + "/other.yaml", "--request-id", id});
  EXPECT_EQ(reused.exit_code, 1);
  EXPECT_THAT(reused.err, HasSubstr("was used before with another payload"));
  const auto jobs = nlohmann::json::parse(cluster.Trainyard({"list", "-o", "json"}).out)["jobs"];
  EXPECT_EQ(jobs.size(), 1u);
  cluster.WaitForState(first, "JOB_STATE_SUCCEEDED");
}

}  // namespace
}  // namespace trainyard::testing_support
