#include "worker/daemon/spawner_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "worker/daemon/processes.h"
#include "worker/daemon/spawner.h"

namespace trainyard::daemon {
namespace {

struct Runner {
  uint32_t id = 0;
  pid_t pid = 0;  // also the number of its group
  bool has_ended = false;
};

constexpr int kKillAllSeconds = 60;

int64_t NowSeconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec;
}

// In the child: never returns. `fds` are numbered above 10, so that dup2 overwrites none of them.
[[noreturn]] void Exec(const std::vector<std::string>& environment, const std::vector<std::string>& command,
                       const std::vector<int>& fds, int error_fd, pid_t spawner) {
  const auto fail = [&](int error) {
    [[maybe_unused]] const ssize_t put = write(error_fd, &error, sizeof(error));
    _exit(127);
  };
  if (setsid() < 0) fail(errno);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != spawner) _exit(127);  // it died before the line above
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    struct sigaction action {};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);
  }
  const int null = open("/dev/null", O_RDONLY);
  if (null < 0 || dup2(null, 0) < 0) fail(errno);
  for (size_t i = 0; i < fds.size(); ++i) {
    if (dup2(fds[i], static_cast<int>(i) + 1) < 0) fail(errno);
  }
  // All else closes at exec, the error pipe included.
  for (int fd = static_cast<int>(fds.size()) + 1; fd < 1024; ++fd) fcntl(fd, F_SETFD, FD_CLOEXEC);
  for (const std::string& change : environment) {
    const size_t equals = change.find('=');
    const std::string name = change.substr(0, equals);
    if (equals == std::string::npos ? unsetenv(name.c_str()) != 0
                                    : setenv(name.c_str(), change.c_str() + equals + 1, 1) != 0) {
      fail(errno);
    }
  }
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  fail(errno);
  _exit(127);
}

class SpawnerProcess {
 public:
  explicit SpawnerProcess(int socket) : socket_(socket) {}

  [[noreturn]] void Run() {
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, nullptr);
    const int signal_fd = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    while (true) {
      pollfd waits[2] = {{socket_, POLLIN, 0}, {signal_fd, POLLIN, 0}};
      // A group whose leader has ended says nothing when its last member goes, so look often for that short time.
      poll(waits, 2, HasDying() ? 10 : 1000);
      signalfd_siginfo info;
      while (read(signal_fd, &info, sizeof(info)) > 0) {
      }
      if (waits[0].revents != 0 && !ReadOrder()) KillAllAndExit();
      Reap();
    }
  }

 private:
  bool HasDying() const {
    return std::any_of(runners_.begin(), runners_.end(), [](const Runner& r) { return r.has_ended; });
  }

  Runner* Find(uint32_t id) {
    const auto it = std::find_if(runners_.begin(), runners_.end(), [&](const Runner& r) { return r.id == id; });
    return it == runners_.end() ? nullptr : &*it;
  }

  void Report(const SpawnEvent& event) {
    // Blocks if the daemon is slow; if it has gone, the next read tells.
    [[maybe_unused]] const ssize_t put = send(socket_, &event, sizeof(event), MSG_NOSIGNAL);
  }

  // False when the daemon has gone.
  bool ReadOrder() {
    static char buffer[1 << 16];
    alignas(cmsghdr) char control[CMSG_SPACE(kMaxPassedFds * sizeof(int))];
    iovec io{buffer, sizeof(buffer)};
    msghdr header{};
    header.msg_iov = &io;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    const ssize_t got = recvmsg(socket_, &header, MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return true;
    if (got < static_cast<ssize_t>(sizeof(SpawnerOrder))) return false;
    std::vector<int> fds;
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
      fds.resize((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
      std::memcpy(fds.data(), CMSG_DATA(c), fds.size() * sizeof(int));
    }
    SpawnerOrder order;
    std::memcpy(&order, buffer, sizeof(order));
    if (order.kind == SpawnerOrder::Kind::kSignal) {
      const Runner* runner = Find(order.id);
      if (runner != nullptr) kill(-runner->pid, order.signal);
    } else {
      std::vector<std::string> environment, command;
      const char* end = buffer + got;
      for (const char* word = buffer + sizeof(order); word < end; word += std::strlen(word) + 1) {
        (environment.size() < order.environment_count ? environment : command).emplace_back(word);
      }
      Spawn(order.id, environment, command, fds);
    }
    for (const int fd : fds) close(fd);
    return true;
  }

  void Spawn(uint32_t id, const std::vector<std::string>& environment, const std::vector<std::string>& command,
             const std::vector<int>& fds) {
    SpawnEvent event;
    event.id = id;
    event.kind = SpawnEvent::Kind::kFailed;
    int error_pipe[2];
    if (pipe2(error_pipe, O_CLOEXEC) != 0) {
      event.error = errno;
      return Report(event);
    }
    std::vector<int> high;
    for (const int fd : fds) high.push_back(fcntl(fd, F_DUPFD_CLOEXEC, 16));
    const int error_fd = fcntl(error_pipe[1], F_DUPFD_CLOEXEC, 16);
    const pid_t spawner = getpid();
    const pid_t pid = fork();
    if (pid == 0) Exec(environment, command, high, error_fd, spawner);
    event.error = pid < 0 ? errno : 0;
    for (const int fd : high) close(fd);
    close(error_fd);
    close(error_pipe[1]);
    if (pid > 0) {
      // Ends with end of file when exec has succeeded.
      int error = 0;
      ssize_t got;
      do {
        got = read(error_pipe[0], &error, sizeof(error));
      } while (got < 0 && errno == EINTR);
      if (got == sizeof(error)) {
        event.error = error;
        waitpid(pid, nullptr, 0);
      } else {
        event.kind = SpawnEvent::Kind::kStarted;
        event.pid = pid;
        ProcessFacts facts;
        if (ReadProcess(pid, &facts)) event.start_ticks = facts.start_ticks;
        runners_.push_back({id, pid, false});
      }
    }
    close(error_pipe[0]);
    Report(event);
  }

  void Reap() {
    int status = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
      const auto it =
          std::find_if(runners_.begin(), runners_.end(), [&](const Runner& r) { return r.pid == pid && !r.has_ended; });
      if (it == runners_.end()) continue;  // an orphan that was handed to us
      it->has_ended = true;
      SpawnEvent event;
      event.kind = SpawnEvent::Kind::kEnded;
      event.id = it->id;
      event.pid = pid;
      if (WIFEXITED(status)) event.exit_code = WEXITSTATUS(status);
      if (WIFSIGNALED(status)) event.signal = WTERMSIG(status);
      kill(-pid, SIGKILL);
      Report(event);
    }
    if (!HasDying()) return;
    // Groups first: who dies after the look at its group may have left a stray, who died before has handed it to us.
    std::vector<pid_t> empty;
    for (const Runner& runner : runners_) {
      if (runner.has_ended && !GroupIsAlive(runner.pid)) empty.push_back(runner.pid);
    }
    if (KillStrays()) return;
    for (size_t i = 0; i < runners_.size();) {
      if (std::find(empty.begin(), empty.end(), runners_[i].pid) == empty.end()) {
        ++i;
        continue;
      }
      SpawnEvent event;
      event.kind = SpawnEvent::Kind::kGone;
      event.id = runners_[i].id;
      event.pid = runners_[i].pid;
      runners_.erase(runners_.begin() + static_cast<std::ptrdiff_t>(i));
      Report(event);
    }
  }

  // Children of ours that are no runner and in no runner's group have left their group on purpose and lost their
  // parent. True if there are any.
  bool KillStrays() {
    bool found = false;
    const pid_t self = getpid();
    for (const ProcessFacts& facts : AllProcesses()) {
      if (facts.parent != self || facts.state == 'Z') continue;
      const bool known =
          std::any_of(runners_.begin(), runners_.end(), [&](const Runner& r) { return r.pid == facts.group; });
      if (known) continue;
      kill(facts.pid, SIGKILL);
      found = true;
    }
    return found;
  }

  [[noreturn]] void KillAllAndExit() {
    const int64_t deadline = NowSeconds() + kKillAllSeconds;
    while (NowSeconds() < deadline) {
      for (const Runner& runner : runners_) kill(-runner.pid, SIGKILL);
      while (waitpid(-1, nullptr, WNOHANG) > 0) {
      }
      // In this order, for the reason given in Reap.
      bool alive = false;
      for (const Runner& runner : runners_) alive |= GroupIsAlive(runner.pid);
      if (!KillStrays() && !alive) break;
      poll(nullptr, 0, 5);
    }
    _exit(0);
  }

  const int socket_;
  std::vector<Runner> runners_;
};

}  // namespace

void RunSpawnerProcess(int socket) {
  setsid();  // the terminal's signals are the daemon's business
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) {
    struct sigaction action {};
    action.sa_handler = SIG_IGN;
    sigaction(signal, &action, nullptr);
  }
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  prctl(PR_SET_NAME, "trainyard-spawn");
  SpawnerProcess(socket).Run();
}

}  // namespace trainyard::daemon
