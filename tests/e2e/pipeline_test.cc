// Jobs that wait for each other, submitted as one file: the second trains on what the first leaves, whatever dies
// meanwhile (CP-16).
#include <signal.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/undisturbed.h"

namespace trainyard::testing_support {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The tiny job on the model that `from` leaves.
std::string JobAfter(const std::string& name, const std::string& from, int steps) {
  std::string yaml = Cluster::TinyJob(name, steps);
  const size_t begin = yaml.find("model:\n"), end = yaml.find("data:");
  return yaml.replace(begin, end - begin, absl::StrCat("model: {artifact: ", from, "}\n"));
}

class PipelineTest : public ::testing::Test {
 protected:
  void SetUp() override { cluster_.MakeData(); }
  void TearDown() override { ExpectNoRunnerLeft(cluster_); }

  CommandResult SubmitFile(const std::string& yaml, const std::vector<std::string>& flags = {}) {
    const std::string path = cluster_.dir() + "/pipeline.yaml";
    EXPECT_TRUE(WriteFileAtomic(path, yaml).ok());
    std::vector<std::string> arguments = {"submit", "-f", path};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    return cluster_.Trainyard(arguments);
  }
  // The later job stands first in the file: order does not matter.
  std::string SubmitPair(const std::string& first, const std::string& second) {
    const CommandResult result =
        SubmitFile(absl::StrCat(JobAfter(second, first, kSteps), "---\n", Cluster::TinyJob(first, kSteps)));
    EXPECT_EQ(result.exit_code, 0) << result.err << cluster_.Logs();
    return result.out;
  }
  void WaitForSuccess(const std::string& job) {
    const CommandResult wait =
        cluster_.Trainyard({"wait", job, "--for=SUCCEEDED", "--timeout", "240s"}, absl::Seconds(270));
    EXPECT_EQ(wait.exit_code, 0) << job << ": " << wait.out << wait.err << cluster_.Get(job).dump(1) << cluster_.Logs();
  }

  Cluster cluster_;
};

TEST_F(PipelineTest, TheSecondTrainsOnTheFirstsModelAlsoWhenDaemonsDie) {
  const std::string accepted = SubmitPair("calm", "calm-next");
  EXPECT_THAT(accepted, AllOf(HasSubstr("job calm ("), HasSubstr(" queued, after calm")));
  EXPECT_THAT(cluster_.Get("calm-next")["pending"].value("message", ""), HasSubstr("calm"));
  WaitForSuccess("calm");
  WaitForSuccess("calm-next");
  const std::string first = cluster_.ModelBytes("calm"), second = cluster_.ModelBytes("calm-next");
  ASSERT_FALSE(first.empty());
  ASSERT_FALSE(second.empty());
  EXPECT_NE(first, second);
  const auto losses = cluster_.Losses("calm-next");
  ASSERT_EQ(losses.size(), static_cast<size_t>(kSteps));
  // It began where the other ended, not at ln 512.
  EXPECT_LT(std::stod(losses.begin()->second), 3.5);

  SubmitPair("rough", "rough-next");
  ASSERT_TRUE(cluster_.WaitForStep("rough", 100));
  cluster_.worker(0).Signal(SIGKILL);
  cluster_.worker(0).Wait(absl::Seconds(10));
  cluster_.StartWorker(0);
  ASSERT_TRUE(cluster_.WaitForState("rough", "JOB_STATE_SUCCEEDED", absl::Seconds(180)));
  // Between the two, and in the middle of the second.
  cluster_.coordinator().Signal(SIGKILL);
  cluster_.coordinator().Wait(absl::Seconds(10));
  cluster_.StartCoordinator();
  ASSERT_TRUE(cluster_.WaitForStep("rough-next", 100, absl::Seconds(120)));
  cluster_.worker(1).Signal(SIGKILL);
  cluster_.worker(1).Wait(absl::Seconds(10));
  cluster_.StartWorker(1);
  WaitForSuccess("rough-next");
  EXPECT_GT(cluster_.Get("rough-next")["attempts"].size(), 1u);
  EXPECT_TRUE(cluster_.ModelBytes("rough") == first);
  EXPECT_TRUE(cluster_.ModelBytes("rough-next") == second);
}

TEST_F(PipelineTest, WhatWaitsForAFailureFailsWithoutRunning) {
  std::string broken = Cluster::TinyJob("broken", 10);
  broken.replace(broken.find("path: data"), 10, "path: nowhere");
  const CommandResult result =
      SubmitFile(absl::StrCat(broken, "---\n", JobAfter("after-broken", "broken", 10), "---\n",
                              Cluster::TinyJob("whatever", 10), "depends_on: [{job: broken, condition: finished}]\n"));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  ASSERT_TRUE(cluster_.WaitForState("broken", "JOB_STATE_FAILED"));
  ASSERT_TRUE(cluster_.WaitForState("after-broken", "JOB_STATE_FAILED"));
  const auto record = cluster_.Get("after-broken");
  EXPECT_THAT(record["exit"].dump(), HasSubstr("broken"));
  EXPECT_FALSE(record.contains("attempts") && !record["attempts"].empty()) << record.dump(1);
  WaitForSuccess("whatever");
}

TEST_F(PipelineTest, CyclesAndUnknownJobsAreRefusedWholeWithTheirLines) {
  std::string first = Cluster::TinyJob("ring", 10, "depends_on: [ring-next]\n");
  CommandResult result = SubmitFile(absl::StrCat(first, "---\n", JobAfter("ring-next", "ring", 10)));
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("pipeline.yaml:"),
                                HasSubstr("depends_on[0].job: waits for itself: ring -> ring-next -> ring")));
  // Only the coordinator knows that this one is nowhere.
  result = SubmitFile(absl::StrCat(Cluster::TinyJob("good", 10), "---\n", JobAfter("lost", "nowhere", 10)));
  EXPECT_EQ(result.exit_code, 1) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("pipeline.yaml:"), HasSubstr("nowhere")));
  EXPECT_EQ(cluster_.Trainyard({"get", "good"}).exit_code, 3) << "half of a file was accepted";
}

}  // namespace
}  // namespace trainyard::testing_support
