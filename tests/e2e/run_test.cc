// `trainyard run`: coordinator, workers and jobs in one process tree, which goes on where an earlier one was killed.
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
using ::testing::Not;

class RunTest : public ::testing::Test {
 protected:
  void SetUp() override { cluster_.MakeData(); }
  void TearDown() override { ExpectNoRunnerLeft(cluster_); }

  std::vector<std::string> Command(const std::string& yaml) {
    const std::string file = cluster_.dir() + "/run.yaml";
    EXPECT_TRUE(WriteFileAtomic(file, yaml).ok());
    return {ProgramPath("client/trainyard"), "run",         file,           "--dir",
            cluster_.dir() + "/run",         "--data_root", cluster_.dir(), "--set",
            "retry.backoff_initial=1s"};
  }

  Cluster cluster_{{.workers = 0}};  // for its data and its folder
};

TEST_F(RunTest, TheSameCommandGoesOnAfterAKill) {
  const std::vector<std::string> command = Command(Cluster::TinyJob("local", kSteps));
  const std::string output = cluster_.dir() + "/first.txt";
  Process first({.argv = command, .environment = {{"NO_COLOR", "1"}}, .output_path = output});
  ASSERT_TRUE(WaitUntil([&] { return absl::StrContains(ReadFile(output).value_or(""), "loss"); }, absl::Seconds(60)))
      << ReadFile(output).value_or("");
  first.Signal(SIGKILL);
  first.Wait(absl::Seconds(10));
  const CommandResult second = RunCommand(command, {{"NO_COLOR", "1"}}, absl::Seconds(180));
  EXPECT_EQ(second.exit_code, 0) << second.out << second.err;
  EXPECT_THAT(second.out, AllOf(HasSubstr("going on with what an earlier run"), HasSubstr("job local succeeded")));
  // It is over now, so the same command is a new job.
  const CommandResult third = RunCommand(command, {{"NO_COLOR", "1"}}, absl::Seconds(180));
  EXPECT_EQ(third.exit_code, 0) << third.out << third.err;
  EXPECT_THAT(third.out, Not(HasSubstr("going on with")));
}

TEST_F(RunTest, RunsAPipelineAndNamesWhatIsNowhere) {
  const std::string first = Cluster::TinyJob("one", 20);
  const std::string second = absl::StrCat(Cluster::TinyJob("two", 20), "depends_on: [one]\n");
  const CommandResult both = RunCommand(Command(absl::StrCat(first, "---\n", second)), {}, absl::Seconds(180));
  EXPECT_EQ(both.exit_code, 0) << both.out << both.err;
  EXPECT_THAT(both.out, AllOf(HasSubstr("job one succeeded"), HasSubstr("job two succeeded")));
  std::string lost = Cluster::TinyJob("lost", 20);
  const size_t begin = lost.find("model:\n"), end = lost.find("data:");
  lost.replace(begin, end - begin, "model: {artifact: nowhere}\n");
  const CommandResult refused = RunCommand(Command(lost), {}, absl::Seconds(60));
  EXPECT_NE(refused.exit_code, 0);
  EXPECT_THAT(refused.err, AllOf(HasSubstr("run.yaml:"), HasSubstr("nowhere")));
}

}  // namespace
}  // namespace trainyard::testing_support
