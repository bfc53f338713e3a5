#include "worker/tools/child_process.h"

#include <signal.h>

#include "absl/time/clock.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard::tools {
namespace {

ChildOptions Shell(const std::string& script, const std::string& log_path = "") {
  ChildOptions options;
  options.command = {"/bin/sh", "-c", script};
  options.log_path = log_path;
  return options;
}

int WaitFor(ChildProcess& child) {
  while (!child.ExitCode()) absl::SleepFor(absl::Milliseconds(1));  // the test's own time limit bounds it
  return *child.ExitCode();
}

TEST(ChildProcessTest, TellsExitCodesAndSignals) {
  ASSERT_OK_AND_ASSIGN(ChildProcess exits, ChildProcess::Start(Shell("exit 7")));
  EXPECT_EQ(WaitFor(exits), 7);
  ASSERT_OK_AND_ASSIGN(ChildProcess killed, ChildProcess::Start(Shell("kill -9 $$")));
  EXPECT_EQ(WaitFor(killed), 128 + SIGKILL);
  ChildOptions missing;
  missing.command = {"/no/such/program"};
  ASSERT_OK_AND_ASSIGN(ChildProcess never, ChildProcess::Start(missing));
  EXPECT_EQ(WaitFor(never), 127);
}

TEST(ChildProcessTest, WritesToTheLogWithItsEnvironment) {
  TempDir dir;
  for (const char* word : {"one", "two"}) {
    ChildOptions options = Shell("echo $WORD; echo err >&2", dir.Join("log"));
    options.environment = {std::string("WORD=") + word};
    ASSERT_OK_AND_ASSIGN(ChildProcess child, ChildProcess::Start(options));
    EXPECT_EQ(WaitFor(child), 0);
  }
  ASSERT_OK_AND_ASSIGN(const std::string log, ReadFile(dir.Join("log")));
  EXPECT_EQ(log, "one\nerr\ntwo\nerr\n");
}

TEST(ChildProcessTest, StopAsksFirstAndKillsWhatDoesNotListen) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(
      ChildProcess polite,
      ChildProcess::Start(Shell("trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done", dir.Join("polite"))));
  while (*ReadFile(dir.Join("polite")) != "up\n") absl::SleepFor(absl::Milliseconds(1));
  EXPECT_TRUE(polite.Stop(absl::Seconds(30)));
  EXPECT_EQ(polite.ExitCode(), 3);
  EXPECT_TRUE(polite.Stop(absl::Seconds(30)));  // again is fine

  ASSERT_OK_AND_ASSIGN(
      ChildProcess deaf,
      ChildProcess::Start(Shell("trap '' TERM; echo up; while :; do sleep 0.01; done", dir.Join("deaf"))));
  while (*ReadFile(dir.Join("deaf")) != "up\n") absl::SleepFor(absl::Milliseconds(1));
  EXPECT_FALSE(deaf.Stop(absl::Milliseconds(50)));
  EXPECT_EQ(deaf.ExitCode(), 128 + SIGKILL);
}

TEST(ChildProcessTest, EndsWithItsObject) {
  pid_t pid = 0;
  {
    ASSERT_OK_AND_ASSIGN(ChildProcess child, ChildProcess::Start(Shell("sleep 600")));
    pid = child.pid();
    EXPECT_EQ(kill(pid, 0), 0);
  }
  EXPECT_EQ(kill(pid, 0), -1);
}

TEST(FindProgramTest, NamesTheTwoPlaces) {
  EXPECT_THAT(FindProgram("trainyard-nothing", "some/where"),
              StatusIs(absl::StatusCode::kNotFound, ::testing::HasSubstr("some/where/trainyard-nothing")));
}

}  // namespace
}  // namespace trainyard::tools
