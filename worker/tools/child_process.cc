#include "worker/tools/child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/file.h"

extern char** environ;  // NOLINT: POSIX has it nowhere else

namespace trainyard::tools {
namespace {

std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(const ChildOptions& options) {
  // All memory is taken before fork; between fork and exec only calls that are safe there.
  std::vector<std::string> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) environment.emplace_back(*variable);
  environment.insert(environment.end(), options.environment.begin(), options.environment.end());
  const std::vector<char*> arguments = Pointers(options.command), variables = Pointers(environment);
  const pid_t parent = getpid();

  int log = -1;
  if (!options.log_path.empty()) {
    log = open(options.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log < 0) return ErrnoStatus(errno, "cannot open", options.log_path);
  }
  const pid_t pid = fork();
  if (pid < 0) {
    const int error = errno;
    if (log >= 0) close(log);
    return ErrnoStatus(error, "cannot start", options.command[0]);
  }
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(127);  // it died before it could be watched
    if (options.own_group) setpgid(0, 0);
    if (log >= 0) {
      dup2(log, STDOUT_FILENO);
      dup2(log, STDERR_FILENO);
      const int nothing = open("/dev/null", O_RDONLY);
      if (nothing >= 0) dup2(nothing, STDIN_FILENO);
    }
    execve(arguments[0], arguments.data(), variables.data());
    _exit(127);
  }
  if (log >= 0) close(log);
  return ChildProcess(pid);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), exit_code_(other.exit_code_) {}

ChildProcess::~ChildProcess() {
  Stop(absl::Seconds(10));
}

std::optional<int> ChildProcess::ExitCode() {
  if (exit_code_ || pid_ < 0) return exit_code_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return exit_code_;
}

bool ChildProcess::Stop(absl::Duration patience) {
  if (pid_ < 0 || ExitCode()) return true;
  kill(pid_, SIGTERM);
  const absl::Duration end = RealClock()->Monotonic() + patience;
  while (!ExitCode()) {
    if (RealClock()->Monotonic() > end) {
      kill(pid_, SIGKILL);
      while (!ExitCode()) absl::SleepFor(absl::Milliseconds(10));  // nothing survives it
      return false;
    }
    absl::SleepFor(absl::Milliseconds(20));
  }
  return true;
}

absl::StatusOr<std::string> FindProgram(const std::string& name, const std::string& bazel_folder) {
  char buffer[4096];
  const ssize_t length = readlink("/proc/self/exe", buffer, sizeof(buffer));
  if (length <= 0) return ErrnoStatus(errno, "cannot read", "/proc/self/exe");
  const std::string own(buffer, static_cast<size_t>(length));
  const std::string folder = own.substr(0, own.rfind('/'));
  const std::string beside = JoinPath(folder, name);
  if (access(beside.c_str(), X_OK) == 0) return beside;
  // This program is <tree>/worker/tools/trainyard-local there.
  const std::string built = JoinPath(folder, absl::StrCat("../../", bazel_folder, "/", name));
  if (access(built.c_str(), X_OK) == 0) return built;
  return absl::NotFoundError(absl::StrCat(name, " is neither ", beside, " nor ", built));
}

}  // namespace trainyard::tools
