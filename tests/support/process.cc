#include "tests/support/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/file.h"
#include "base/testing/temp_dir.h"

extern char** environ;

namespace trainyard::testing_support {
namespace {

std::vector<std::string> Environment(const std::map<std::string, std::string>& added) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (added.count(text.substr(0, text.find('='))) == 0) result.push_back(text);
  }
  for (const auto& [name, value] : added) result.push_back(absl::StrCat(name, "=", value));
  return result;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

Process::Process(const ProcessOptions& options) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  constexpr int kWrite = O_WRONLY | O_CREAT | O_APPEND;
  if (!options.output_path.empty()) {
    posix_spawn_file_actions_addopen(&actions, 2, options.output_path.c_str(), kWrite, 0644);
    posix_spawn_file_actions_adddup2(&actions, 2, 1);
  }
  if (!options.stdout_path.empty()) {
    posix_spawn_file_actions_addopen(&actions, 1, options.stdout_path.c_str(), kWrite, 0644);
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  std::vector<std::string> argv = options.argv;
  std::vector<std::string> environment = Environment(options.environment);
  const int error =
      posix_spawnp(&pid_, argv[0].c_str(), &actions, &attributes, Pointers(argv).data(), Pointers(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) internal::CheckFailed(__FILE__, __LINE__, absl::StrCat("cannot start ", argv[0]));
}

Process::~Process() {
  if (!exit_.has_value()) {
    SignalGroup(SIGKILL);
    Wait(absl::Seconds(10));
  }
}

void Process::Signal(int signal) {
  if (!exit_.has_value()) kill(pid_, signal);
}

void Process::SignalGroup(int signal) {
  if (!exit_.has_value()) kill(-pid_, signal);
}

std::optional<ExitStatus> Process::Wait(absl::Duration timeout) {
  WaitUntil(
      [&] {
        int status = 0;
        if (!exit_.has_value() && waitpid(pid_, &status, WNOHANG) == pid_) {
          exit_ = WIFSIGNALED(status) ? ExitStatus{-1, WTERMSIG(status)} : ExitStatus{WEXITSTATUS(status), 0};
        }
        return exit_.has_value();
      },
      timeout);
  return exit_;
}

CommandResult RunCommand(const std::vector<std::string>& argv, const std::map<std::string, std::string>& environment,
                         absl::Duration timeout) {
  TempDir dir;
  Process process(
      {.argv = argv, .environment = environment, .output_path = dir.Join("err"), .stdout_path = dir.Join("out")});
  const std::optional<ExitStatus> exit = process.Wait(timeout);
  CommandResult result;
  if (exit.has_value()) result.exit_code = exit->code;
  result.out = ReadFile(dir.Join("out")).value_or("");
  result.err = ReadFile(dir.Join("err")).value_or("");
  return result;
}

std::vector<pid_t> ProcessesOf(const std::string& program) {
  std::vector<pid_t> found;
  const auto names = ListDir("/proc");
  if (!names.ok()) return found;
  for (const std::string& name : *names) {
    pid_t pid = 0;
    if (!absl::SimpleAtoi(name, &pid) || pid == getpid()) continue;
    const std::string command_line = ReadFile(absl::StrCat("/proc/", name, "/cmdline")).value_or("");
    if (command_line.substr(0, command_line.find('\0')) == program) found.push_back(pid);
  }
  return found;
}

std::vector<pid_t> Descendants(pid_t root) {
  std::vector<pid_t> found = {root};
  for (size_t i = 0; i < found.size(); ++i) {
    const std::string tasks = absl::StrCat("/proc/", found[i], "/task");
    for (const std::string& task : ListDir(tasks).value_or(std::vector<std::string>())) {
      const std::string children = ReadFile(absl::StrCat(tasks, "/", task, "/children")).value_or("");
      for (absl::string_view word : absl::StrSplit(children, ' ', absl::SkipEmpty())) {
        pid_t pid = 0;
        if (absl::SimpleAtoi(word, &pid)) found.push_back(pid);
      }
    }
  }
  return found;
}

void Pause(absl::Duration duration) {
  absl::SleepFor(duration);
}

}  // namespace trainyard::testing_support
