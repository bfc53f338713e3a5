// Child processes of `run`: started with their output in a file or ours, ended with us whatever happens.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace trainyard::tools {

struct ChildOptions {
  std::vector<std::string> command;      // command[0] is the program's path
  std::vector<std::string> environment;  // "NAME=value", on top of ours
  // stdout and stderr are appended to this file; empty: ours.
  std::string log_path;
  // A process group of its own, so that a Ctrl-C at the terminal does not reach it.
  bool own_group = true;
};

// Not thread-safe. The child gets SIGTERM if this process dies.
class ChildProcess {
 public:
  static absl::StatusOr<ChildProcess> Start(const ChildOptions& options);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;
  ~ChildProcess();  // Stop, with ten seconds

  pid_t pid() const { return pid_; }
  // The exit code, 128 + signal for a killed one; nothing while it runs.
  std::optional<int> ExitCode();
  // SIGTERM, and SIGKILL after `patience`. False if it had to be killed.
  bool Stop(absl::Duration patience);

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_ = -1;  // -1: moved from
  std::optional<int> exit_code_;
};

// The program `name` (say "trainyard-worker") beside this executable, or where Bazel builds it: `bazel_folder`
// ("worker/daemon") below the same output tree. NotFound names both places.
absl::StatusOr<std::string> FindProgram(const std::string& name, const std::string& bazel_folder);

}  // namespace trainyard::tools
