// A child process in a process group of its own, as tests need it: output to a file, signals, bounded waits.
#pragma once

#include <sys/types.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/clock.h"

namespace trainyard::testing_support {

struct ProcessOptions {
  std::vector<std::string> argv;
  std::map<std::string, std::string> environment = {};  // added to the test's own
  std::string output_path = {};                         // stdout and stderr; empty: the test's own
  std::string stdout_path = {};                         // if set, stdout goes here and only stderr to output_path
};

struct ExitStatus {
  int code = -1;  // -1 if a signal ended it
  int signal = 0;
};

class Process {
 public:
  // Aborts the test if the program cannot be started.
  explicit Process(const ProcessOptions& options);
  // Kills the whole group if it still runs.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  void Signal(int signal);  // to the process alone
  void SignalGroup(int signal);
  // Empty if it has not ended within `timeout`.
  std::optional<ExitStatus> Wait(absl::Duration timeout);

 private:
  pid_t pid_ = -1;
  std::optional<ExitStatus> exit_;
};

struct CommandResult {
  int exit_code = -1;  // -1: a signal, or the timeout
  std::string out;
  std::string err;
};

// Runs to the end, or kills it after `timeout`.
CommandResult RunCommand(const std::vector<std::string>& argv,
                         const std::map<std::string, std::string>& environment = {},
                         absl::Duration timeout = absl::Seconds(60));

// Calls `condition` every 20 ms until it holds; false after `timeout`.
template <typename Condition>
bool WaitUntil(const Condition& condition, absl::Duration timeout);

// Ids of live (not zombie) processes that were started as `program`.
std::vector<pid_t> ProcessesOf(const std::string& program);

// `root` and all its descendants that are alive now, whatever session or group they are in.
std::vector<pid_t> Descendants(pid_t root);

void Pause(absl::Duration duration);

template <typename Condition>
bool WaitUntil(const Condition& condition, absl::Duration timeout) {
  const absl::Duration end = RealClock()->Monotonic() + timeout;
  while (RealClock()->Monotonic() < end) {
    if (condition()) return true;
    Pause(absl::Milliseconds(20));
  }
  return condition();
}

}  // namespace trainyard::testing_support
