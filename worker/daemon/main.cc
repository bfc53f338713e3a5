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
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/arguments.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "base/version.h"
#include "worker/daemon/daemon.h"
#include "worker/daemon/gpu/select.h"

namespace trainyard::daemon {
namespace {

struct Flags {
  std::string coordinator = "127.0.0.1:7070";
  Security security;
  std::string state_dir, job_root, data_root = ".", address, metrics_listen, runner, port_file;
  std::string log_level = "info";
  std::vector<std::string> labels, runner_environment;
  int cpu_slots = 1, driver_slots = 8;
  std::string gpus = "auto", nvml_library = kNvmlLibrary, gpu_fatal_xids = "48,62,64,74,79,95,119,120",
              gpu_ignored_xids = "13,31,43,45,68,109", dcgm_job_mapping_dir;
  int expected_gpus = 0;
  int64_t gpu_memory_tolerance_mb = 512;
  int64_t log_limit_bytes = int64_t{1} << 30;
  int64_t artifact_cache_bytes = int64_t{8} << 30;
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

// Fills in `options` and opens the driver's library, if GPUs are wanted and there: after the spawner was forked.
absl::Status SetUpGpus(const Flags& flags, GpuOptions* options, std::unique_ptr<Nvml>* nvml) {
  GpuPolicy& policy = options->policy;
  absl::StatusOr<std::set<int>> fatal = ParseXids(flags.gpu_fatal_xids, &policy.all_are_fatal);
  if (!fatal.ok()) return Annotate(fatal.status(), "--gpu_fatal_xids");
  absl::StatusOr<std::set<int>> ignored = ParseXids(flags.gpu_ignored_xids);
  if (!ignored.ok()) return Annotate(ignored.status(), "--gpu_ignored_xids");
  policy.fatal_xids = *std::move(fatal);
  policy.ignored_xids = *std::move(ignored);
  policy.memory_tolerance_bytes = flags.gpu_memory_tolerance_mb << 20;
  options->job_mapping_dir = flags.dcgm_job_mapping_dir.empty() ? "" : Absolute(flags.dcgm_job_mapping_dir);
  if (flags.gpus == "none") return absl::OkStatus();

  const bool is_optional = flags.gpus == "auto" && flags.expected_gpus == 0;
  absl::StatusOr<std::unique_ptr<Nvml>> opened = Nvml::Open(flags.nvml_library);
  if (!opened.ok() && is_optional) {
    LogInfo("no GPUs: ", opened.status().message());
    return absl::OkStatus();
  }
  if (!opened.ok()) return Annotate(opened.status(), absl::StrCat("--gpus ", flags.gpus));
  TY_ASSIGN_OR_RETURN(const std::vector<GpuIdentity> present, (*opened)->List());
  TY_ASSIGN_OR_RETURN(GpuSelection selection, SelectGpus(flags.gpus, present, flags.expected_gpus));
  for (const std::string& skipped : selection.skipped) LogWarning("not offered: ", skipped);
  if (selection.gpus.empty() && !is_optional) {
    return absl::NotFoundError(absl::StrCat("--gpus ", flags.gpus, ": the driver lists ", present.size(),
                                            " GPUs, and none of them can be offered"));
  }
  for (const GpuIdentity& gpu : selection.gpus) {
    LogInfo("GPU ", gpu.index, ": ", gpu.error.empty() ? absl::StrCat(gpu.name, ", ", gpu.uuid) : gpu.error);
  }
  options->offered = std::move(selection.gpus);
  if (!options->offered.empty()) *nvml = *std::move(opened);
  return absl::OkStatus();
}

int Run(const Flags& flags) {
  DaemonOptions options;
  options.session = {.coordinator = flags.coordinator, .security = flags.security, .seed = RandomId()};
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
  const std::string cache_dir = JoinPath(options.state_dir, "cache");
  if (flags.artifact_cache_bytes > 0) {
    options.runner.push_back(absl::StrCat("--cache_dir=", cache_dir));
    options.runner.push_back(absl::StrCat("--cache_bytes=", flags.artifact_cache_bytes));
  } else if (const absl::Status removed = RemoveTree(cache_dir); !removed.ok()) {
    LogWarning("--artifact_cache_bytes 0, but the old cache stays: ", removed.message());
  }
  for (const std::string& label : flags.labels) {
    if (label.empty()) continue;  // "--labels=" is none
    const std::pair<std::string, std::string> parts = absl::StrSplit(label, absl::MaxSplits('=', 1));
    if (parts.first.empty() || label.find('=') == std::string::npos) {
      return Fail(absl::StrCat("--labels: '", label, "' is not key=value"));
    }
    options.labels[parts.first] = parts.second;
  }

  for (const std::string& change : flags.runner_environment) {
    if (change.empty() || change[0] == '=') {
      return Fail(absl::StrCat("--runner_env: '", change, "' is neither NAME=VALUE nor NAME"));
    }
  }
  options.runner_environment = flags.runner_environment;

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
  std::unique_ptr<Nvml> nvml;
  if (const absl::Status set_up = SetUpGpus(flags, &options.gpu, &nvml); !set_up.ok()) return Fail(set_up.message());
  if (options.cpu_slots + options.gpu.offered.size() == 0) {
    return Fail("nothing to offer: no GPU is there and --cpu_slots is 0");
  }
  absl::StatusOr<std::unique_ptr<Daemon>> daemon =
      Daemon::Create(options, *std::move(spawner), metrics->get(), std::move(nvml));
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
          options.cpu_slots, " CPU, ", options.gpu.offered.size(), " GPU and ", options.driver_slots,
          " driver slots at ", options.address, ", coordinator ", flags.coordinator,
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
  app.add_flag("--insecure", flags.security.insecure, "Allow plaintext to a coordinator beyond loopback");
  app.add_option("--tls_cert", flags.security.tls.cert,
                 "PEM certificate; with --tls_key and --tls_ca turns on mutual TLS");
  app.add_option("--tls_key", flags.security.tls.key, "PEM private key of --tls_cert");
  app.add_option("--tls_ca", flags.security.tls.ca, "PEM certificate of the CA that the coordinator must be of");
  app.add_option("--state_dir", flags.state_dir, "Folder of this daemon alone: identity, fences, logs")->required();
  app.add_option("--job_root", flags.job_root,
                 "Folder of jobs' checkpoints and models, shared by all workers of a job "
                 "(default: STATE_DIR/jobs, right for a single worker)");
  app.add_option("--data_root", flags.data_root, "Where relative paths in job specs start")->capture_default_str();
  app.add_option("--cpu_slots", flags.cpu_slots, "CPU slots offered: ranks that may run at a time")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--gpus", flags.gpus,
                 "GPUs offered, a slot each: auto (all, if there is a driver), all (it is an error if there is none), "
                 "none, or a list of indices and UUIDs")
      ->capture_default_str();
  app.add_option("--expected_gpus", flags.expected_gpus,
                 "GPUs this host should have: with --gpus auto or all, missing ones appear as unhealthy slots")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  app.add_option("--gpu_fatal_xids", flags.gpu_fatal_xids,
                 "XID errors after which a GPU is not used until the host reboots, or 'all' for all but the ignored")
      ->capture_default_str();
  app.add_option("--gpu_ignored_xids", flags.gpu_ignored_xids, "XID errors that a program causes by its own mistakes")
      ->capture_default_str();
  app.add_option("--gpu_memory_tolerance_mb", flags.gpu_memory_tolerance_mb,
                 "MiB that may be in use on a GPU before a rank starts and after it has gone")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--dcgm_job_mapping_dir", flags.dcgm_job_mapping_dir,
                 "Folder of dcgm-exporter's --hpc-job-mapping-dir: which job uses which GPU (default: not written)");
  app.add_option("--nvml_library", flags.nvml_library, "NVIDIA's management library")
      ->envname("TRAINYARD_NVML_LIBRARY")
      ->capture_default_str();
  app.add_option("--runner_env", flags.runner_environment,
                 "NAME=VALUE set, or NAME unset, in the environment of every runner; may be given several times")
      ->take_all();
  app.add_option("--driver_slots", flags.driver_slots,
                 "Slots beside those for jobs that wait for trials, such as searches and studies")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--address", flags.address,
                 "Address at which ranks on other hosts reach this one (default: the one "
                 "used towards the coordinator)");
  app.add_option(
      "--metrics_listen", flags.metrics_listen,
      "HOST:PORT of GET /metrics, /livez and /readyz; port 0 takes a free one; empty, as by default, turns it off");
  app.add_option("--labels", flags.labels, "key=value labels of this worker")->delimiter(',');
  app.add_option("--runner", flags.runner, "The trainyard-runner program (default: found beside this one)");
  app.add_option("--port_file", flags.port_file, "Write the chosen addresses to this file once serving");
  app.add_option("--log_limit_bytes", flags.log_limit_bytes, "Disk space for logs of runners")
      ->check(CLI::Range(int64_t{1} << 16, int64_t{1} << 50))
      ->capture_default_str();
  app.add_option("--artifact_cache_bytes", flags.artifact_cache_bytes,
                 "Disk space below STATE_DIR for copies of other jobs' files that many jobs here read, such as the "
                 "levels of a pruning search; 1 GiB of the disk stays free; 0: none are kept")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 50))
      ->capture_default_str();
  app.add_option("--log_level", flags.log_level, "debug, info, warning or error")->capture_default_str();
  const trainyard::Arguments arguments(argc, argv);
  CLI11_PARSE(app, arguments.argc(), arguments.argv());
  trainyard::LogLevel level;
  if (!trainyard::ParseLogLevel(flags.log_level, &level)) {
    std::fprintf(stderr, "--log_level: '%s' is not debug, info, warning or error\n", flags.log_level.c_str());
    return 2;
  }
  trainyard::InitLog("worker", level);
  return trainyard::daemon::Run(flags);
}
