// A quantization-aware training job as its user sees it: submit, the reported loss, the packed model through `eval` and
// `generate`, and what is wrong with bad files.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/undisturbed.h"

namespace trainyard::testing_support {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

class QatTest : public ::testing::Test {
 protected:
  void SetUp() override { cluster_.MakeData(); }
  void TearDown() override { ExpectNoRunnerLeft(cluster_); }
  Cluster cluster_;
};

TEST_F(QatTest, TrainsAndLeavesAPackedModelOfTheSameLoss) {
  std::string yaml = Replaced(Cluster::TinyJob("qat", 200), "pretrain: {}", "qat: {sample_prompts: [\"the train\"]}");
  yaml = Replaced(yaml, "training:\n", R"(training:
  linear: {quest: {hadamard_dim: 64}}
  evaluation: {interval_steps: 0, batches: 8}
)");
  const std::string file = cluster_.dir() + "/qat.yaml";
  ASSERT_TRUE(WriteFileAtomic(file, yaml).ok());
  const CommandResult plan = cluster_.Trainyard({"plan", file, "-o", "json"});
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_GT(nlohmann::json::parse(plan.out)["memory_bytes_per_rank"], 0);

  const std::string job = cluster_.Submit(yaml);
  const CommandResult wait =
      cluster_.Trainyard({"wait", job, "--for=SUCCEEDED", "--timeout", "120s"}, absl::Seconds(150));
  ASSERT_EQ(wait.exit_code, 0) << wait.err << cluster_.Logs();
  const auto result = cluster_.Get(job)["result"];
  const double reported = result["values"]["evaluation_loss"];
  EXPECT_LT(reported, 3) << "it has not learned";
  ASSERT_EQ(result["artifacts"].size(), 2u) << result.dump(1);
  ASSERT_EQ(result["artifacts"][1]["name"], "packed");
  const std::string packed = result["artifacts"][1]["path"];

  // The codes alone, in a program that knows nothing of the job.
  const std::string data = cluster_.dir() + "/data";
  const std::vector<std::string> evaluate = {"eval", "--model",   packed, "--data", data,  "--sequence_length",
                                             "64",   "--windows", "32",   "-o",     "json"};
  const CommandResult eval = cluster_.Trainyard(evaluate);
  ASSERT_EQ(eval.exit_code, 0) << eval.err;
  EXPECT_NEAR(nlohmann::json::parse(eval.out)["loss"].get<double>(), reported, 2e-3);
  const CommandResult text =
      cluster_.Trainyard({"generate", "--model", packed, "--prompt", "the train", "--max_tokens", "12"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("the train"));

  // A flipped bit in the last matrix.
  std::string weights = *ReadFile(packed + "/model.safetensors");
  weights.back() = static_cast<char>(weights.back() ^ 1);
  ASSERT_TRUE(WriteFileAtomic(packed + "/model.safetensors", weights).ok());
  const CommandResult damaged = cluster_.Trainyard(evaluate);
  EXPECT_NE(damaged.exit_code, 0);
  EXPECT_THAT(damaged.err, AllOf(HasSubstr("model.safetensors"), HasSubstr("damaged")));
}

TEST_F(QatTest, SizesThatTheRotationDoesNotFitAreRefusedAtSubmit) {
  const std::string yaml =
      Replaced(Cluster::TinyJob("refused", 10), "pretrain: {}", "qat: {}");  // 64 inputs, group 128
  const std::string file = cluster_.dir() + "/refused.yaml";
  ASSERT_TRUE(WriteFileAtomic(file, yaml).ok());
  const CommandResult result = cluster_.Trainyard({"submit", "-f", file});
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_THAT(result.err, AllOf(HasSubstr("training.linear.quest"), HasSubstr("128"), HasSubstr("64")));
}

}  // namespace
}  // namespace trainyard::testing_support
