// A job that asks for trials, over real daemons: whatever is killed, each trial has one result, and it is that of the
// undisturbed run (CP-14, I23); a cancel takes the trials along. The driver is a study, the quickest of them.
#include <signal.h>

#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/undisturbed.h"

namespace trainyard::testing_support {
namespace {

using ::testing::HasSubstr;

// Three sizes at two ratios: six trainings of 20 to some 2000 steps.
std::string TinyStudy(const std::string& name, double longest) {
  return absl::StrCat("name: ", name, R"(
world: {min: 1, threads_per_rank: 1}
seed: 7
study:
  sizes:
    - {name: small, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2}
    - {name: middle, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 3, num_attention_heads: 2}
    - {name: large, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4}
  tokens_per_parameter: [0.5, )",
                      longest, R"(]
  recipes: [{name: baseline}]
  fit: {form: chinchilla, bootstrap: 0}
  max_parallel: 2
model:
  shape: {vocab_size: 512, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2}
data: {path: data, sequence_length: 64}
training:
  micro_batch: 4
  optimizer: {adamw: {learning_rate: 3.0e-3}}
  schedule: {shape: cosine}
checkpoint: {interval_steps: 50, keep_last: 2}
retry: {backoff_initial: 1s, backoff_maximum: 2s}
)");
}

using TrialKey = std::pair<std::string, int64_t>;  // generation as proto JSON has it, index

class TrialsTest : public ::testing::Test {
 protected:
  void SetUp() override { cluster_.MakeData(); }
  void TearDown() override { ExpectNoRunnerLeft(cluster_); }

  nlohmann::json Trials(const std::string& parent) {
    const CommandResult result = cluster_.Trainyard({"list", "--parent", parent, "-o", "json"});
    const auto answer = nlohmann::json::parse(result.out, nullptr, false);
    return answer.is_object() ? answer.value("jobs", nlohmann::json::array()) : nlohmann::json::array();
  }
  int Ended(const std::string& parent) {
    int ended = 0;
    for (const auto& trial : Trials(parent)) ended += trial.value("state", "") == "JOB_STATE_SUCCEEDED" ? 1 : 0;
    return ended;
  }
  // The exact text of each trial's loss; fails the test on one that has not succeeded or is there twice.
  std::map<TrialKey, std::string> FinalLosses(const std::string& parent) {
    std::map<TrialKey, std::string> losses;
    for (const auto& trial : Trials(parent)) {
      EXPECT_EQ(trial.value("state", ""), "JOB_STATE_SUCCEEDED") << trial.dump(1);
      const TrialKey key(trial.value("generation", "0"), trial.value("trialIndex", 0));
      EXPECT_TRUE(losses.emplace(key, trial["result"]["values"]["final_loss"].dump()).second)
          << "generation " << key.first << ", trial " << key.second << " is there twice";
    }
    return losses;
  }
  void WaitForSuccess(const std::string& job) { cluster_.WaitForState(job, "JOB_STATE_SUCCEEDED", absl::Seconds(240)); }

  Cluster cluster_;
};

TEST_F(TrialsTest, DeathsRepeatAndLoseNoTrial) {
  cluster_.Submit(TinyStudy("calm", 4));
  WaitForSuccess("calm");
  const std::map<TrialKey, std::string> expected = FinalLosses("calm");
  ASSERT_EQ(expected.size(), 6u);
  const CommandResult table = cluster_.Trainyard({"get", "calm", "--trials"});
  EXPECT_THAT(table.out, HasSubstr("GENERATION"));
  EXPECT_THAT(cluster_.Trainyard({"get", "calm", "--generation", "1"}).out, HasSubstr("final_loss="));
  EXPECT_EQ(nlohmann::json::parse(cluster_.Trainyard({"list", "-o", "json"}).out)["jobs"].size(), 1u)
      << "trials are listed among the jobs";

  const std::string rough = cluster_.Submit(TinyStudy("rough", 4));
  ASSERT_TRUE(WaitUntil([&] { return Ended(rough) >= 1; }, absl::Seconds(60))) << cluster_.Logs();
  cluster_.coordinator().Signal(SIGKILL);
  cluster_.coordinator().Wait(absl::Seconds(10));
  cluster_.StartCoordinator();
  ASSERT_TRUE(WaitUntil([&] { return Ended(rough) >= 3; }, absl::Seconds(120))) << cluster_.Logs();
  // Both daemons, and so the driver and every trial that runs.
  for (const int worker : {0, 1}) {
    cluster_.worker(worker).Signal(SIGKILL);
    cluster_.worker(worker).Wait(absl::Seconds(10));
    cluster_.StartWorker(worker);
  }
  WaitForSuccess(rough);
  EXPECT_EQ(FinalLosses(rough), expected);
  EXPECT_GT(Attempts(cluster_, rough), 1);
}

TEST_F(TrialsTest, ACancelTakesTheTrialsAlong) {
  const std::string job = cluster_.Submit(TinyStudy("cancelled", 400));
  ASSERT_TRUE(WaitUntil([&] { return cluster_.Runners().size() == 3; }, absl::Seconds(60)))
      << "a driver and two trials should run" << cluster_.Logs();
  const CommandResult cancel = cluster_.Trainyard({"cancel", job});
  EXPECT_EQ(cancel.exit_code, 0) << cancel.err;
  EXPECT_THAT(cancel.out, HasSubstr("trials that had not ended"));
  cluster_.WaitForState(job, "JOB_STATE_CANCELLED");
  ExpectNoRunnerLeft(cluster_);
  const auto trials = Trials(job);
  EXPECT_EQ(trials.size(), 6u);
  for (const auto& trial : trials) EXPECT_NE(trial.value("state", ""), "JOB_STATE_RUNNING") << trial.dump(1);
}

}  // namespace
}  // namespace trainyard::testing_support
