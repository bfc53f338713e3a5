// The coordinator program: flags, then CoordinatorServer until SIGTERM or SIGINT.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/arguments.h"
#include "base/descriptor_limit.h"
#include "base/file.h"
#include "base/log.h"
#include "base/version.h"
#include "coordinator/api/coordinator_server.h"

namespace {

using trainyard::coordinator::CoordinatorOptions;
using trainyard::coordinator::CoordinatorServer;

// "3s", "1.5m", "500ms": what absl::ParseDuration takes.
void AddDuration(CLI::App& app, const std::string& name, absl::Duration* value, const std::string& help) {
  app.add_option_function<std::string>(
         name,
         [name, value](const std::string& text) {
           if (!absl::ParseDuration(text, value)) throw CLI::ValidationError(name, "\"" + text + "\" is not like 15s");
         },
         help)
      ->default_str(absl::FormatDuration(*value));
}

// Blocks until SIGTERM or SIGINT, which every thread has blocked since main began.
int WaitForSignal(const sigset_t& signals) {
  int signal = 0;
  while (sigwait(&signals, &signal) != 0) {
  }
  return signal;
}

}  // namespace

int main(int argc, char** argv) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread, so that all inherit it
  signal(SIGPIPE, SIG_IGN);

  CoordinatorOptions options;
  options.metrics_listen = "127.0.0.1:7071";
  std::string port_file, log_level = "info";
  absl::Duration stop_limit = absl::Seconds(20);

  CLI::App app("Trainyard's coordinator: schedules jobs onto workers.");
  app.set_version_flag("--version", trainyard::kVersion);
  app.add_option("--listen", options.listen, "Address of the gRPC services; port 0 takes a free one")
      ->capture_default_str();
  app.add_option("--data_dir", options.data_dir, "Folder of the database and the logs, on a local disk")->required();
  app.add_option("--metrics_listen", options.metrics_listen,
                 "Address of GET /metrics, /livez and /readyz; empty turns it off")
      ->capture_default_str();
  app.add_option("--web_listen", options.web_listen,
                 "Address of the web view, protected as --listen is; empty turns it off; usually port 7072");
  app.add_flag("--insecure", options.insecure, "Allow plaintext beyond loopback");
  app.add_option("--tls_cert", options.tls.cert, "PEM certificate; with --tls_key and --tls_ca turns on mutual TLS");
  app.add_option("--tls_key", options.tls.key, "PEM private key of --tls_cert");
  app.add_option("--tls_ca", options.tls.ca, "PEM certificates of the CA that clients and workers must be of");
  app.add_option(
      "--port_file", port_file,
      "Write the bound addresses here: lines \"grpc HOST:PORT\" and, of what is not turned off, \"metrics HOST:PORT\" "
      "and \"web HOST:PORT\"");
  app.add_option("--log_level", log_level, "debug, info, warning or error")->capture_default_str();
  trainyard::coordinator::Timing& timing = options.timing;
  AddDuration(app, "--heartbeat_interval", &timing.heartbeat_interval, "At most lease_ttl / 4");
  AddDuration(app, "--lease_ttl", &timing.lease_ttl, "A worker that is silent so long is lost");
  AddDuration(app, "--minimum_lease_ttl", &timing.minimum_lease_ttl, "Smallest lease_ttl that is accepted");
  AddDuration(app, "--failover_grace", &timing.failover_grace, "Time for workers to come back after a start");
  AddDuration(app, "--self_fence_after", &timing.self_fence_after, "A worker without coordinator stops its tasks");
  AddDuration(app, "--prepare_timeout", &timing.prepare_timeout, "From assignment until all ranks are ready");
  AddDuration(app, "--barrier_timeout", &timing.barrier_timeout, "From the first ready rank until all are");
  AddDuration(app, "--kill_timeout", &timing.kill_timeout, "After SIGKILL, until a slot counts as unhealthy");
  AddDuration(app, "--reserve_after", &timing.reserve_after, "A job that waited so long is not overtaken any more");
  app.add_option("--backoff_scale", timing.backoff_scale, "Times every back-off of retries; for tests")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  AddDuration(app, "--stop_limit", &stop_limit, "Longest graceful stop");
  const trainyard::Arguments arguments(argc, argv);
  CLI11_PARSE(app, arguments.argc(), arguments.argv());

  trainyard::LogLevel level;
  if (!trainyard::ParseLogLevel(log_level, &level)) {
    std::fprintf(stderr, "--log_level: \"%s\" is not debug, info, warning or error\n", log_level.c_str());
    return 2;
  }
  trainyard::InitLog("coordinator", level);
  // Each worker and each client has a connection.
  trainyard::LogDebug("at most ", trainyard::RaiseDescriptorLimit(), " files and connections");
  auto server = CoordinatorServer::Start(options);
  if (!server.ok()) {
    trainyard::LogError("cannot start: ", std::string(server.status().message()));
    return 1;
  }
  const std::string metrics = (*server)->metrics_address();
  trainyard::LogInfo("serving on ", (*server)->address(),
                     metrics.empty() ? ", without metrics" : absl::StrCat(", metrics on ", metrics));
  const std::string web = (*server)->web_address();
  if (!web.empty()) trainyard::LogInfo("web view on ", options.tls.is_set() ? "https://" : "http://", web, "/");
  if (!port_file.empty()) {
    const absl::Status status = trainyard::WriteFileAtomic(
        port_file, absl::StrCat("grpc ", (*server)->address(), "\n",
                                metrics.empty() ? "" : absl::StrCat("metrics ", metrics, "\n"),
                                web.empty() ? "" : absl::StrCat("web ", web, "\n")));
    if (!status.ok()) {
      trainyard::LogError("--port_file: ", std::string(status.message()));
      return 1;
    }
  }
  const int signal = WaitForSignal(signals);
  trainyard::LogInfo("stopping on signal ", signal);
  (*server)->Stop(stop_limit);
  trainyard::LogInfo("stopped");
  return 0;
}
