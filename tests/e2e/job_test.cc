// The life of a job as its user sees it: submit, watch, logs, metrics, generate; suspend and resume; cancel; wrong
// input; Ctrl-C. All through the `trainyard` program against real daemons.
#include <signal.h>

#include <cmath>

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

class JobTest : public ::testing::Test {
 protected:
  void SetUp() override { cluster_.MakeData(); }
  void TearDown() override { ExpectNoRunnerLeft(cluster_); }
  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = cluster_.dir() + "/" + name;
    EXPECT_TRUE(WriteFileAtomic(path, text).ok());
    return path;
  }
  Cluster cluster_;
};

TEST_F(JobTest, TrainsLearnsAndLeavesAModelThatGenerates) {
  const std::string job = cluster_.Submit(Cluster::TinyJob("learn", 300));
  const CommandResult wait =
      cluster_.Trainyard({"wait", job, "--for=SUCCEEDED", "--timeout", "120s"}, absl::Seconds(150));
  ASSERT_EQ(wait.exit_code, 0) << wait.err << cluster_.Logs();

  const std::map<int64_t, std::string> losses = cluster_.Losses(job);
  ASSERT_EQ(losses.size(), 300u);
  // ln 512 plus the head's own variance at the start; the text has 18 words, so a model that learned to spell is far
  // below the entropy of letters.
  EXPECT_NEAR(std::stod(losses.begin()->second), std::log(512.0), 0.15);
  EXPECT_LT(std::stod(losses.rbegin()->second), 1.7);

  const CommandResult plot = cluster_.Trainyard({"metrics", job, "--names", "loss", "--plot"});
  EXPECT_EQ(plot.exit_code, 0) << plot.err;
  EXPECT_THAT(plot.out, HasSubstr("loss"));

  const CommandResult logs = cluster_.Trainyard({"logs", job, "--rank", "0"});
  EXPECT_EQ(logs.exit_code, 0) << logs.err;
  EXPECT_FALSE(logs.out.empty() && logs.err.empty());

  const auto record = cluster_.Get(job);
  const std::string model = record["result"]["artifacts"][0]["path"];
  const CommandResult text =
      cluster_.Trainyard({"generate", "--model", model, "--prompt", "the train", "--max_tokens", "20"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("the train"));
  // Greedy decoding is a function of the model and the prompt.
  EXPECT_EQ(text.out,
            cluster_.Trainyard({"generate", "--model", model, "--prompt", "the train", "--max_tokens", "20"}).out);
}

TEST_F(JobTest, SuspendAndResumeEqualTheUndisturbedRun) {
  const RunRecord expected = RunUndisturbed(cluster_, "undisturbed");
  const std::string job = cluster_.Submit(Cluster::TinyJob("suspended", kSteps));
  ASSERT_TRUE(cluster_.WaitForStep(job, 100));
  ASSERT_EQ(cluster_.Trainyard({"suspend", job}).exit_code, 0);
  ASSERT_TRUE(cluster_.WaitForState(job, "JOB_STATE_SUSPENDED"));
  ExpectNoRunnerLeft(cluster_);
  EXPECT_EQ(cluster_.Trainyard({"suspend", job}).exit_code, 0) << "a second suspend is not an error";
  ASSERT_EQ(cluster_.Trainyard({"resume", job}).exit_code, 0);
  ExpectSameAs(expected, cluster_, job);
}

TEST_F(JobTest, CancelStopsEveryRankAndIsFinal) {
  const std::string job = cluster_.Submit(Cluster::TinyJob("cancelled", 100000));
  ASSERT_TRUE(cluster_.WaitForStep(job, 20));
  EXPECT_EQ(cluster_.Trainyard({"cancel", job}).exit_code, 0);
  cluster_.WaitForState(job, "JOB_STATE_CANCELLED");
  ExpectNoRunnerLeft(cluster_);
  EXPECT_EQ(cluster_.Trainyard({"cancel", job}).exit_code, 0) << "a second cancel changes nothing and is fine";
  const CommandResult resume = cluster_.Trainyard({"resume", job});
  EXPECT_EQ(resume.exit_code, 1);
  EXPECT_EQ(cluster_.Trainyard({"wait", job, "--for=SUCCEEDED", "--timeout", "10s"}).exit_code, 6);
}

TEST_F(JobTest, InterruptedWatchLeavesTheJobRunningAndSaysSo) {
  const std::string job = cluster_.Submit(Cluster::TinyJob("watched", 100000));
  ASSERT_TRUE(cluster_.WaitForStep(job, 20));
  const std::string output = cluster_.dir() + "/watch.txt";
  Process watch({.argv = {ProgramPath("client/trainyard"), "watch", job},
                 .environment = {{"TRAINYARD_ADDRESS", cluster_.coordinator_address()}},
                 .output_path = output});
  ASSERT_TRUE(WaitUntil([&] { return absl::StrContains(ReadFile(output).value_or(""), "loss"); }, absl::Seconds(20)))
      << ReadFile(output).value_or("");
  watch.Signal(SIGINT);
  ASSERT_TRUE(watch.Wait(absl::Seconds(10)).has_value());
  EXPECT_THAT(ReadFile(output).value_or(""), HasSubstr("trainyard watch"));
  const int64_t step = cluster_.Step(job);
  EXPECT_TRUE(cluster_.WaitForStep(job, step + 20)) << "the job stopped with its watcher";
  cluster_.Trainyard({"cancel", job});
  cluster_.WaitForState(job, "JOB_STATE_CANCELLED");
}

TEST_F(JobTest, WrongSpecsAreRefusedWithEveryPlaceAndChangeNothing) {
  std::string yaml = Cluster::TinyJob("wrong", 10);
  yaml.replace(yaml.find("learning_rate: 3.0e-3"), 21, "learnig_rate: 3.0e-3");
  yaml.replace(yaml.find("micro_batch: 4"), 14, "micro_batch: 0");
  const CommandResult result = cluster_.Trainyard({"submit", "-f", Write("wrong.yaml", yaml)});
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("training.optimizer.adamw.learnig_rate: unknown field, did you mean learning_rate?"),
                    HasSubstr("training.micro_batch"), HasSubstr("wrong.yaml:")));
  EXPECT_EQ(nlohmann::json::parse(cluster_.Trainyard({"list", "-o", "json"}).out)
                .value("jobs", nlohmann::json::array())
                .size(),
            0u);
}

TEST_F(JobTest, MissingDataFailsAtOnceWithThePath) {
  std::string yaml = Cluster::TinyJob("nodata", 10);
  yaml.replace(yaml.find("path: data"), 10, "path: nowhere");
  const std::string job = cluster_.Submit(yaml);
  cluster_.WaitForState(job, "JOB_STATE_FAILED");
  const auto record = cluster_.Get(job);
  EXPECT_THAT(record["exit"].value("message", ""), HasSubstr("nowhere"));
  EXPECT_EQ(record["attempts"].size(), 1u) << "a missing data set was retried";
}

TEST_F(JobTest, TooManyRanksWaitWithTheNumbers) {
  std::string yaml = Cluster::TinyJob("large", 10);
  yaml.replace(yaml.find("min: 2"), 6, "min: 5");
  const std::string job = cluster_.Submit(yaml);
  EXPECT_EQ(cluster_.State(job), "JOB_STATE_QUEUED");
  EXPECT_TRUE(WaitUntil([&] { return absl::StrContains(cluster_.Get(job)["pending"].value("message", ""), "5"); },
                        absl::Seconds(10)))
      << cluster_.Get(job).dump(1);
  EXPECT_EQ(cluster_.Trainyard({"cancel", job}).exit_code, 0);
  cluster_.WaitForState(job, "JOB_STATE_CANCELLED");
}

TEST_F(JobTest, UnknownJobIsExitCode3) {
  EXPECT_EQ(cluster_.Trainyard({"get", "no-such-job"}).exit_code, 3);
  EXPECT_EQ(cluster_.Trainyard({"logs", "no-such-job"}).exit_code, 3);
}

}  // namespace
}  // namespace trainyard::testing_support
