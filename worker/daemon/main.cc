// trainyard-worker: the daemon of one host.
#include <limits.h>
#include <netdb.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/unique_fd.h"
#include "base/version.h"
#include "worker/daemon/daemon.h"

namespace trainyard::daemon {
namespace {

struct Flags {
  std::string coordinator = "127.0.0.1:7070";
  bool insecure = false;
  std::string state_dir, job_root, data_root = ".", address, metrics_listen, runner, port_file;
  std::string log_level = "info";
  std::vector<std::string> labels;
  int cpu_slots = 1, driver_slots = 8;
  int64_t log_limit_bytes = int64_t{1} << 30;
};

std::string Absolute(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

std::string HostName() {
  char name[HOST_NAME_MAX + 1] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "localhost";
}

// Beside this program, or where Bazel puts it.
std::string FindRunner() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  for (const char* place : {"trainyard-runner", "../runner/trainyard-runner"}) {
    const std::string path = (self.parent_path() / place).lexically_normal().string();
    if (access(path.c_str(), X_OK) == 0) return path;
  }
  return "";
}

// The address of this host on the way to the coordinator. Connecting a datagram socket sends nothing.
std::string AddressTowards(const std::string& coordinator) {
  const size_t colon = coordinator.rfind(':');
  if (colon == std::string::npos) return "127.0.0.1";
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  hints.ai_family = AF_INET;
  addrinfo* found = nullptr;
  if (getaddrinfo(coordinator.substr(0, colon).c_str(), coordinator.substr(colon + 1).c_str(), &hints, &found) != 0) {
    return "127.0.0.1";
  }
  char host[NI_MAXHOST] = "127.0.0.1";
  UniqueFd socket(::socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage own{};
  socklen_t own_bytes = sizeof(own);
  if (socket.valid() && connect(socket.get(), found->ai_addr, found->ai_addrlen) == 0 &&
      getsockname(socket.get(), reinterpret_cast<sockaddr*>(&own), &own_bytes) == 0) {
    getnameinfo(reinterpret_cast<sockaddr*>(&own), own_bytes, host, sizeof(host), nullptr, 0, NI_NUMERICHOST);
  }
  freeaddrinfo(found);
  return host;
}

int Fail(absl::string_view message) {
  LogError(message);
  return 1;
}

int Run(const Flags& flags) {
  DaemonOptions options;
  options.session = {.coordinator = flags.coordinator, .insecure = flags.insecure, .seed = RandomId()};
  options.state_dir = Absolute(flags.state_dir);
  options.job_root = Absolute(flags.job_root.empty() ? JoinPath(flags.state_dir, "jobs") : flags.job_root);
  options.data_root = Absolute(flags.data_root);
  options.cpu_slots = flags.cpu_slots;
  options.driver_slots = flags.driver_slots;
  options.host = HostName();
  options.address = flags.address.empty() ? AddressTowards(flags.coordinator) : flags.address;
  options.log_limit_bytes = flags.log_limit_bytes;
  const std::string runner = flags.runner.empty() ? FindRunner() : Absolute(flags.runner);
  if (runner.empty() || access(runner.c_str(), X_OK) != 0) {
    return Fail(absl::StrCat("no runner program", runner.empty() ? " beside this one" : absl::StrCat(" at ", runner),
                             "; give --runner PATH"));
  }
  options.runner = {runner};
  for (const std::string& label : flags.labels) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(label, absl::MaxSplits('=', 1));
    if (parts.first.empty() || label.find('=') == std::string::npos) {
      return Fail(absl::StrCat("--labels: '", label, "' is not key=value"));
    }
    options.labels[parts.first] = parts.second;
  }

  // Before gRPC, Prometheus or any thread.
  absl::StatusOr<Spawner> spawner = Spawner::Fork();
  if (!spawner.ok()) return Fail(spawner.status().message());
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  absl::StatusOr<std::unique_ptr<Metrics>> metrics = Metrics::Create(flags.metrics_listen);
  if (!metrics.ok()) return Fail(metrics.status().message());
  absl::StatusOr<std::unique_ptr<Daemon>> daemon = Daemon::Create(options, *std::move(spawner), metrics->get());
  if (!daemon.ok()) return Fail(daemon.status().message());

  UniqueFd signal_fd(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  (*daemon)->loop().Watch(signal_fd.get(), EPOLLIN, [&](uint32_t) {
    signalfd_siginfo info;
    while (read(signal_fd.get(), &info, sizeof(info)) == sizeof(info)) (*daemon)->Drain();
  });
  const Identity& identity = (*daemon)->identity();
  std::string metrics_address;
  if (!flags.metrics_listen.empty()) {
    metrics_address =
        absl::StrCat(flags.metrics_listen.substr(0, flags.metrics_listen.rfind(':')), ":", (*metrics)->port());
  }
  if (!flags.port_file.empty()) {
    const absl::Status written = WriteFileAtomic(
        flags.port_file, absl::StrCat("pid ", getpid(), "\n",
                                      metrics_address.empty() ? "" : absl::StrCat("metrics ", metrics_address, "\n")));
    if (!written.ok()) return Fail(written.message());
  }
  LogInfo("worker ", identity.worker_id, " (start ", identity.start_count, ", version ", kVersion, ") with ",
          options.cpu_slots, " CPU and ", options.driver_slots, " driver slots at ", options.address, ", coordinator ",
          flags.coordinator,
          metrics_address.empty() ? "" : absl::StrCat(", metrics at http://", metrics_address, "/metrics"));
  const absl::Status end = (*daemon)->Run();
  if (!end.ok()) return Fail(end.message());
  LogInfo("drained; leaving");
  return 0;
}

}  // namespace
}  // namespace trainyard::daemon

int main(int argc, char** argv) {
  using trainyard::daemon::Flags;
  Flags flags;
  CLI::App app("Trainyard's worker daemon: runs the ranks of jobs on this host. SIGTERM drains it.");
  app.set_version_flag("--version", std::string("trainyard-worker ") + trainyard::kVersion);
  app.add_option("--coordinator", flags.coordinator, "Coordinator, HOST:PORT")->capture_default_str();
  app.add_flag("--insecure", flags.insecure, "Allow plaintext to a coordinator beyond loopback");
  app.add_option("--state_dir", flags.state_dir, "Folder of this daemon alone: identity, fences, logs")->required();
  app.add_option("--job_root", flags.job_root,
                 "Folder of jobs' checkpoints and models, shared by all workers of a job "
                 "(default: STATE_DIR/jobs, right for a single worker)");
  app.add_option("--data_root", flags.data_root, "Where relative paths in job specs start")->capture_default_str();
  app.add_option("--cpu_slots", flags.cpu_slots, "CPU slots offered: ranks that may run at a time")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--driver_slots", flags.driver_slots,
                 "Slots beside those for jobs that wait for trials, such as searches and studies")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--address", flags.address,
                 "Address at which ranks on other hosts reach this one (default: the one "
                 "used towards the coordinator)");
  app.add_option("--metrics_listen", flags.metrics_listen, "HOST:PORT for Prometheus; port 0 takes any; empty: none");
  app.add_option("--labels", flags.labels, "key=value labels of this worker")->delimiter(',');
  app.add_option("--runner", flags.runner, "The trainyard-runner program (default: found beside this one)");
  app.add_option("--port_file", flags.port_file, "Write the chosen addresses to this file once serving");
  app.add_option("--log_limit_bytes", flags.log_limit_bytes, "Disk space for logs of runners")
      ->check(CLI::Range(int64_t{1} << 16, int64_t{1} << 50))
      ->capture_default_str();
  app.add_option("--log_level", flags.log_level, "debug, info, warning or error")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  trainyard::LogLevel level;
  if (!trainyard::ParseLogLevel(flags.log_level, &level)) {
    std::fprintf(stderr, "--log_level: '%s' is not debug, info, warning or error\n", flags.log_level.c_str());
    return 2;
  }
  trainyard::InitLog("worker", level);
  return trainyard::daemon::Run(flags);
}
