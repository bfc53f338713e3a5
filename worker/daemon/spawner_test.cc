// Real processes. The spawner is forked by main, before any thread.
#include "worker/daemon/spawner.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>

#include <cerrno>
#include <functional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "worker/daemon/processes.h"

namespace trainyard::daemon {
namespace {

Spawner* shared_spawner = nullptr;

bool WaitUntil(const std::function<bool()>& condition, absl::Duration patience = absl::Seconds(20)) {
  const absl::Duration deadline = RealClock()->Monotonic() + patience;
  while (RealClock()->Monotonic() < deadline) {
    if (condition()) return true;
    poll(nullptr, 0, 2);
  }
  return condition();
}

bool IsAlive(pid_t pid) {
  ProcessFacts facts;
  return ReadProcess(pid, &facts) && facts.state != 'Z';
}

struct Spawned {
  uint32_t id = 0;
  std::vector<SpawnEvent> events;

  const SpawnEvent* Find(SpawnEvent::Kind kind) const {
    for (const SpawnEvent& event : events) {
      if (event.kind == kind) return &event;
    }
    return nullptr;
  }
};

class SpawnerTest : public ::testing::Test {
 protected:
  // Runs `script` with the file "out" of the test's folder as its outputs.
  Spawned Run(const std::string& script, int lock_fd = -1) { return Command({"/bin/sh", "-c", script}, lock_fd); }

  Spawned Command(std::vector<std::string> command, int lock_fd = -1, std::vector<std::string> environment = {}) {
    UniqueFd out(open(dir.Join("out").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    Spawned spawned;
    spawned.id = ++next_id;
    SpawnRequest request;
    request.id = spawned.id;
    request.command = std::move(command);
    request.environment = std::move(environment);
    request.stdout_fd = request.stderr_fd = request.link_fd = out.get();
    request.lock_fd = lock_fd;
    TY_CHECK_OK(shared_spawner->Spawn(request));
    return spawned;
  }

  bool WaitFor(Spawned& spawned, SpawnEvent::Kind kind) {
    return WaitUntil([&] {
      const auto events = shared_spawner->TakeEvents();
      TY_CHECK_OK(events);
      for (const SpawnEvent& event : *events) {
        if (event.id == spawned.id) spawned.events.push_back(event);
      }
      return spawned.Find(kind) != nullptr;
    });
  }

  // The first number that the script wrote.
  pid_t Written() {
    int pid = 0;
    WaitUntil([&] {
      const std::string text = ReadFile(dir.Join("out")).value_or("");
      return text.find('\n') != std::string::npos && absl::SimpleAtoi(text.substr(0, text.find('\n')), &pid);
    });
    return pid;
  }

  TempDir dir;
  static uint32_t next_id;
};
uint32_t SpawnerTest::next_id = 0;

TEST_F(SpawnerTest, ReportsStartExitCodeAndEmptyGroupInOrder) {
  Spawned spawned = Run("exit 65");
  ASSERT_TRUE(WaitFor(spawned, SpawnEvent::Kind::kGone));
  ASSERT_EQ(spawned.events.size(), 3u);
  EXPECT_EQ(spawned.events[0].kind, SpawnEvent::Kind::kStarted);
  EXPECT_GT(spawned.events[0].start_ticks, 0u);
  EXPECT_EQ(spawned.events[1].kind, SpawnEvent::Kind::kEnded);
  EXPECT_EQ(spawned.events[1].exit_code, 65);
  EXPECT_EQ(spawned.events[1].signal, -1);
}

// Each runner has changes of its own; the spawner, whose environment they start from, keeps none.
TEST_F(SpawnerTest, ChangesTheEnvironmentOfOneRunner) {
  const std::vector<std::string> script = {"/bin/sh", "-c", "echo \"$TY_A|${TY_B-unset}|${HOME-unset}\""};
  Spawned changed = Command(script, -1, {"TY_A=x=y z", "TY_B=", "HOME"});
  ASSERT_TRUE(WaitFor(changed, SpawnEvent::Kind::kGone));
  EXPECT_EQ(*ReadFile(dir.Join("out")), "x=y z||unset\n");
  Spawned plain = Command(script);
  ASSERT_TRUE(WaitFor(plain, SpawnEvent::Kind::kGone));
  EXPECT_EQ(ReadFile(dir.Join("out"))->find("x=y z||unset\n|unset|"), 0u);
}

TEST_F(SpawnerTest, ReportsTheSignalThatEndedARank) {
  Spawned spawned = Run("kill -9 $$");
  ASSERT_TRUE(WaitFor(spawned, SpawnEvent::Kind::kGone));
  EXPECT_EQ(spawned.events[1].signal, SIGKILL);
  EXPECT_EQ(spawned.events[1].exit_code, -1);
}

TEST_F(SpawnerTest, AProgramThatIsNotThereFailsWithItsErrno) {
  Spawned spawned = Command({dir.Join("nothing")});
  ASSERT_TRUE(WaitFor(spawned, SpawnEvent::Kind::kFailed));
  EXPECT_EQ(spawned.events[0].error, ENOENT);
}

TEST_F(SpawnerTest, RunnersLeadASessionOfTheirOwn) {
  Spawned spawned = Run("echo $$; sleep 100");
  const pid_t pid = Written();
  ProcessFacts facts;
  ASSERT_TRUE(ReadProcess(pid, &facts));
  EXPECT_EQ(facts.session, pid);
  EXPECT_EQ(facts.group, pid);
  ASSERT_OK(shared_spawner->Signal(spawned.id, SIGKILL));
  EXPECT_TRUE(WaitFor(spawned, SpawnEvent::Kind::kGone));
}

TEST_F(SpawnerTest, OnlyTheGivenDescriptorsArePassedOn) {
  Spawned spawned = Command({"/bin/ls", "/proc/self/fd"});
  ASSERT_TRUE(WaitFor(spawned, SpawnEvent::Kind::kGone));
  EXPECT_EQ(ReadFile(dir.Join("out")).value_or(""), "0\n1\n2\n3\n4\n") << "4 is the folder that ls reads";
}

// I1, I18: nothing that a rank started survives it.
TEST_F(SpawnerTest, GrandchildrenEndWithTheRank) {
  Spawned spawned = Run("sleep 1000 & echo $!; exit 0");
  ASSERT_TRUE(WaitFor(spawned, SpawnEvent::Kind::kGone));
  EXPECT_FALSE(IsAlive(Written()));
}

TEST_F(SpawnerTest, AGrandchildThatLeftTheGroupEndsToo) {
  Spawned spawned = Run("setsid sh -c 'echo $$; exec sleep 1000' & sleep 0.3; exit 0");
  const pid_t stray = Written();
  ASSERT_GT(stray, 0);
  ASSERT_TRUE(WaitFor(spawned, SpawnEvent::Kind::kGone));
  EXPECT_FALSE(IsAlive(stray));
}

TEST_F(SpawnerTest, GoneComesOnlyAfterTheLastOfTheGroup) {
  Spawned spawned = Run("trap '' TERM; echo $$; while :; do sleep 0.05; done");
  Written();
  ASSERT_OK(shared_spawner->Signal(spawned.id, SIGTERM));
  EXPECT_FALSE(WaitUntil([&] { return spawned.Find(SpawnEvent::Kind::kEnded) != nullptr; }, absl::Milliseconds(50)));
  ASSERT_OK(shared_spawner->Signal(spawned.id, SIGKILL));
  ASSERT_TRUE(WaitFor(spawned, SpawnEvent::Kind::kGone));
  EXPECT_EQ(spawned.Find(SpawnEvent::Kind::kEnded)->signal, SIGKILL);
}

TEST_F(SpawnerTest, TheSlotStaysLockedAsLongAsTheRankLives) {
  const std::string path = dir.Join("slot.lock");
  absl::StatusOr<FileLock> lock = FileLock::Acquire(path);
  ASSERT_OK(lock);
  Spawned spawned = Run("echo $$; sleep 1000", lock->fd());
  ASSERT_GT(Written(), 0);
  { const FileLock gone = *std::move(lock); }  // as when the daemon dies
  EXPECT_THAT(FileLock::Acquire(path), StatusIs(absl::StatusCode::kFailedPrecondition, ::testing::_));
  ASSERT_OK(shared_spawner->Signal(spawned.id, SIGKILL));
  ASSERT_TRUE(WaitFor(spawned, SpawnEvent::Kind::kGone));
  EXPECT_OK(FileLock::Acquire(path));
}

// A daemon that is killed: its spawner's socket closes, and all runners go.
TEST_F(SpawnerTest, WhenTheDaemonDiesAllItsRunnersDie) {
  const std::string out = dir.Join("daemon_out");
  const pid_t daemon = fork();
  if (daemon == 0) {
    absl::StatusOr<Spawner> spawner = Spawner::Fork();
    if (!spawner.ok()) _exit(1);
    UniqueFd file(open(out.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    SpawnRequest request;
    request.id = 1;
    // The second ignores SIGTERM, and the third has left the group.
    request.command = {"/bin/sh", "-c",
                       "trap '' TERM; echo $$; sleep 1000 & echo $!; setsid sh -c 'echo $$; exec sleep 1000' & wait"};
    request.stdout_fd = request.stderr_fd = request.link_fd = file.get();
    if (!spawner->Spawn(request).ok()) _exit(1);
    poll(nullptr, 0, 100'000);
    _exit(0);
  }
  std::vector<std::string> lines;
  ASSERT_TRUE(WaitUntil([&] {
    lines = absl::StrSplit(ReadFile(out).value_or(""), '\n', absl::SkipEmpty());
    return lines.size() == 3;
  }));
  kill(daemon, SIGKILL);
  waitpid(daemon, nullptr, 0);
  for (const std::string& line : lines) {
    int pid = 0;
    ASSERT_TRUE(absl::SimpleAtoi(line, &pid));
    EXPECT_TRUE(WaitUntil([&] { return !IsAlive(pid); })) << pid;
  }
}

TEST(KillLeftOverTest, KillsTheRecordedGroupAndNobodyElse) {
  const pid_t pid = fork();
  if (pid == 0) {
    setsid();
    signal(SIGTERM, SIG_IGN);
    poll(nullptr, 0, 100'000);
    _exit(0);
  }
  ProcessFacts facts;
  ASSERT_TRUE(WaitUntil([&] { return ReadProcess(pid, &facts) && facts.group == pid; }));
  EXPECT_TRUE(KillLeftOver(pid, facts.start_ticks + 1, absl::Seconds(5)));  // the number was used again
  EXPECT_TRUE(IsAlive(pid));
  EXPECT_TRUE(KillLeftOver(pid, facts.start_ticks, absl::Seconds(5)));
  EXPECT_FALSE(IsAlive(pid));
  waitpid(pid, nullptr, 0);
}

}  // namespace
}  // namespace trainyard::daemon

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  auto spawner = trainyard::daemon::Spawner::Fork();
  TY_CHECK_OK(spawner);
  trainyard::daemon::shared_spawner = &*spawner;
  return RUN_ALL_TESTS();
}
