#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/yaml_spec.h"
#include "proto/spec/job_options.h"
#include "worker/tools/child_process.h"
#include "worker/tools/commands.h"
#include "worker/tools/tool.h"

namespace trainyard::tools {
namespace {

constexpr int kInterrupted = 130;

struct Flags {
  std::string file;
  std::vector<std::string> overrides;
  std::string dir = ".trainyard/run";
  std::string data_root = ".";
  int workers = 0;
};

std::atomic<bool> interrupted{false};

void OnInterrupt(int) {
  interrupted.store(true);
}

absl::StatusOr<std::string> AbsolutePath(const std::string& path) {
  if (absl::StartsWith(path, "/")) return path;
  char buffer[4096];
  if (getcwd(buffer, sizeof(buffer)) == nullptr) return ErrnoStatus(errno, "cannot read", "the current folder");
  return JoinPath(buffer, path);
}

// The processes of one run. They end with the object: workers first, so that they can report to the coordinator.
class Cluster {
 public:
  Cluster(std::string dir, std::string data_root) : dir_(std::move(dir)), data_root_(std::move(data_root)) {}
  ~Cluster() { Stop(); }

  absl::Status Start(int workers, int ranks) {
    TY_ASSIGN_OR_RETURN(const std::string coordinator, FindProgram("trainyard-coordinator", "coordinator"));
    TY_ASSIGN_OR_RETURN(const std::string worker, FindProgram("trainyard-worker", "worker/daemon"));
    TY_ASSIGN_OR_RETURN(client_, FindProgram("trainyard", "client"));
    const std::string ports = JoinPath(dir_, "coordinator.ports");
    TY_RETURN_IF_ERROR(RemoveTree(ports));
    TY_RETURN_IF_ERROR(MakeDirs(JoinPath(dir_, "coordinator")));
    TY_RETURN_IF_ERROR(Launch("coordinator", {coordinator, "--listen", "127.0.0.1:0", "--metrics_listen", "127.0.0.1:0",
                                              "--data_dir", JoinPath(dir_, "coordinator"), "--port_file", ports}));
    TY_RETURN_IF_ERROR(WaitForAddress(ports));
    const int slots = (ranks + workers - 1) / workers;
    for (int i = 1; i <= workers; ++i) {
      const std::string name = absl::StrCat("worker-", i);
      TY_RETURN_IF_ERROR(MakeDirs(JoinPath(dir_, name)));
      TY_RETURN_IF_ERROR(
          Launch(name, {worker, "--coordinator", address_, "--state_dir", JoinPath(dir_, name), "--job_root",
                        JoinPath(dir_, "jobs"), "--data_root", data_root_, "--cpu_slots", absl::StrCat(slots),
                        "--address", "127.0.0.1", "--metrics_listen", "127.0.0.1:0"}));
    }
    return absl::OkStatus();
  }

  // Runs the client with the given arguments; its output goes to ours, or to `output` if that is given. The exit code.
  absl::StatusOr<int> Client(const std::vector<std::string>& arguments, std::string* output = nullptr) {
    ChildOptions options;
    options.command = arguments;
    options.command.insert(options.command.begin(), client_);
    options.environment = {absl::StrCat("TRAINYARD_ADDRESS=", address_)};
    options.own_group = false;  // its prompts and its Ctrl-C are the user's
    const std::string captured = JoinPath(dir_, "client.out");
    if (output != nullptr) {
      TY_RETURN_IF_ERROR(RemoveTree(captured));
      options.log_path = captured;
    }
    TY_ASSIGN_OR_RETURN(ChildProcess client, ChildProcess::Start(options));
    bool was_interrupted = interrupted.load();
    while (!client.ExitCode()) {
      TY_RETURN_IF_ERROR(CheckAlive());
      if (!was_interrupted && interrupted.load()) {
        // A terminal tells both of us, but kill tells only one.
        kill(client.pid(), SIGINT);
        was_interrupted = true;
      }
      absl::SleepFor(absl::Milliseconds(20));
    }
    if (output != nullptr) {
      TY_ASSIGN_OR_RETURN(*output, ReadFile(captured));
    }
    return *client.ExitCode();
  }

  void Stop() {
    // All at once, then each in turn.
    for (size_t i = children_.size(); i-- > 1;) kill(children_[i].pid(), SIGTERM);
    while (!children_.empty()) {
      if (!children_.back().Stop(absl::Seconds(60))) std::cerr << names_.back() << " had to be killed\n";
      children_.pop_back();
      names_.pop_back();
    }
  }

  const std::string& address() const { return address_; }

 private:
  absl::Status Launch(const std::string& name, std::vector<std::string> command) {
    ChildOptions options;
    options.command = std::move(command);
    options.log_path = JoinPath(dir_, name + ".log");
    TY_ASSIGN_OR_RETURN(ChildProcess child, ChildProcess::Start(options));
    children_.push_back(std::move(child));
    names_.push_back(name);
    return absl::OkStatus();
  }

  absl::Status CheckAlive() {
    for (size_t i = 0; i < children_.size(); ++i) {
      if (const std::optional<int> code = children_[i].ExitCode()) {
        return absl::InternalError(
            absl::StrCat(names_[i], " ended with code ", *code, "; its log: ", JoinPath(dir_, names_[i] + ".log")));
      }
    }
    return absl::OkStatus();
  }

  absl::Status WaitForAddress(const std::string& ports) {
    const absl::Duration end = RealClock()->Monotonic() + absl::Seconds(30);
    while (RealClock()->Monotonic() < end && !interrupted.load()) {
      TY_RETURN_IF_ERROR(CheckAlive());
      const absl::StatusOr<std::string> text = ReadFile(ports);
      if (text.ok()) {
        for (absl::string_view line : absl::StrSplit(*text, '\n')) {
          if (absl::ConsumePrefix(&line, "grpc ")) address_ = std::string(line);
        }
        if (!address_.empty()) return absl::OkStatus();
      }
      absl::SleepFor(absl::Milliseconds(20));
    }
    if (interrupted.load()) return absl::CancelledError("interrupted");
    return absl::DeadlineExceededError(
        absl::StrCat("the coordinator did not start within 30 s; its log: ", JoinPath(dir_, "coordinator.log")));
  }

  const std::string dir_, data_root_;
  std::string client_, address_;
  std::vector<ChildProcess> children_;  // the coordinator first
  std::vector<std::string> names_;
};

// Where the job's result says the model is; empty if it has none.
std::string ModelPath(const std::string& job_json) {
  const nlohmann::json job = nlohmann::json::parse(job_json, nullptr, /*allow_exceptions=*/false);
  if (!job.is_object() || !job.contains("result")) return "";
  for (const nlohmann::json& artifact : job["result"].value("artifacts", nlohmann::json::array())) {
    if (artifact.value("name", "") == "model") return artifact.value("path", "");
  }
  return "";
}

absl::Status SubmitAndWatch(const Flags& flags, const std::string& dir, Cluster& cluster, int* exit_code) {
  std::vector<std::string> submit = {"submit", "-f", flags.file, "--quiet"};
  for (const std::string& change : flags.overrides) submit.insert(submit.end(), {"--set", change});
  std::string job;
  TY_ASSIGN_OR_RETURN(*exit_code, cluster.Client(submit, &job));
  job = std::string(absl::StripAsciiWhitespace(job));
  if (*exit_code != 0) {
    std::cerr << job << "\n";
    return absl::OkStatus();
  }
  std::cout << "job " << job << " at " << cluster.address() << ", everything below " << dir << std::endl;
  TY_ASSIGN_OR_RETURN(*exit_code, cluster.Client({"watch", job}));
  if (interrupted.load()) {
    std::cerr << "\ncancelling " << job << " and ending all processes\n";
    TY_RETURN_IF_ERROR(cluster.Client({"cancel", job, "--quiet"}).status());
    *exit_code = kInterrupted;
    return absl::OkStatus();
  }
  TY_RETURN_IF_ERROR(cluster.Client({"get", job}).status());
  std::string record;
  TY_RETURN_IF_ERROR(cluster.Client({"get", job, "-o", "json"}, &record).status());
  std::cout << std::endl << "Next:\n";
  const std::string model = ModelPath(record);
  if (!model.empty()) std::cout << "  trainyard generate --model " << model << " --prompt \"Once\"\n";
  std::cout << "  trainyard run -f " << flags.file << " --dir " << flags.dir << "   # again\n"
            << "  ls " << dir << "/*.log                      # what the processes said\n";
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags, int* exit_code) {
  TY_ASSIGN_OR_RETURN(const std::vector<client::LoadedJob> jobs, client::LoadJobFile(flags.file, flags.overrides));
  if (jobs.size() != 1) {
    return absl::InvalidArgumentError(absl::StrCat(flags.file, ": has ", jobs.size(), " jobs; run takes one"));
  }
  TY_ASSIGN_OR_RETURN(const spec::JobOptions options, spec::ParseJob(jobs[0].spec));
  const int ranks = options.world.max;
  const int workers = flags.workers == 0 ? std::min(ranks, 8) : flags.workers;
  if (workers < 1 || workers > 64) {
    return absl::InvalidArgumentError(absl::StrCat("--workers: ", workers, " not in [1, 64]"));
  }
  TY_ASSIGN_OR_RETURN(const std::string dir, AbsolutePath(flags.dir));
  TY_ASSIGN_OR_RETURN(const std::string data_root, AbsolutePath(flags.data_root));
  TY_RETURN_IF_ERROR(MakeDirs(JoinPath(dir, "jobs")));
  TY_ASSIGN_OR_RETURN(const FileLock lock, FileLock::Acquire(JoinPath(dir, "run.lock")));

  struct sigaction action = {};
  action.sa_handler = OnInterrupt;  // no SA_RESTART: waits end at once
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, &action, nullptr);

  Cluster cluster(dir, data_root);
  absl::Status status = cluster.Start(workers, ranks);
  if (status.ok()) status = SubmitAndWatch(flags, dir, cluster, exit_code);
  cluster.Stop();
  if (interrupted.load()) *exit_code = kInterrupted;
  return interrupted.load() ? absl::OkStatus() : status;
}

}  // namespace

void AddRunCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* const command =
      app.add_subcommand("run", "Coordinator, workers and a job in one process tree; Ctrl-C cancels and ends all");
  command->add_option("job,-f,--file", flags->file, "Job file with one job")->required();
  command->add_option("--set", flags->overrides, "path=value over the file, as often as wanted");
  command->add_option("--dir", flags->dir, "Folder for everything it writes")->capture_default_str();
  command->add_option("--data_root", flags->data_root, "Where relative paths of the job start")->capture_default_str();
  command->add_option("--workers", flags->workers, "Worker daemons; 0: one a rank, at most 8")->capture_default_str();
  command->callback([flags, exit_code] {
    int code = 0;
    const absl::Status status = Run(*flags, &code);
    *exit_code = status.ok() ? code : Finish(status);
  });
}

}  // namespace trainyard::tools
