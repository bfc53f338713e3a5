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
#include "base/digest.h"
#include "base/file.h"
#include "base/ids.h"
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
  int parallel = 1;
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

  // With slots for `ranks` at a time, spread over the workers.
  absl::Status Start(int workers, int ranks) {
    TY_ASSIGN_OR_RETURN(const std::string coordinator, FindProgram("trainyard-coordinator", "coordinator"));
    TY_ASSIGN_OR_RETURN(const std::string worker, FindProgram("trainyard-worker", "worker/daemon"));
    TY_ASSIGN_OR_RETURN(client_, FindProgram("trainyard", "client"));
    TY_RETURN_IF_ERROR(WaitForEarlier(workers));
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

  // The processes of a run that was killed end in good order and hold their folders meanwhile.
  absl::Status WaitForEarlier(int workers) {
    std::vector<std::string> locks = {"coordinator/coordinator.lock"};
    for (int i = 1; i <= workers; ++i) locks.push_back(absl::StrCat("worker-", i, "/lock"));
    const absl::Duration end = RealClock()->Monotonic() + absl::Seconds(60);
    for (const std::string& lock : locks) {
      const std::string path = JoinPath(dir_, lock);
      while (FileExists(path) && !interrupted.load()) {
        const absl::Status free = FileLock::Acquire(path).status();  // and released again
        if (free.ok()) break;
        if (RealClock()->Monotonic() >= end) return Annotate(free, "an earlier run has not ended");
        absl::SleepFor(absl::Milliseconds(100));
      }
    }
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
std::string ModelPath(const nlohmann::json& job) {
  if (!job.is_object() || !job.contains("result")) return "";
  for (const nlohmann::json& artifact : job["result"].value("artifacts", nlohmann::json::array())) {
    if (artifact.value("name", "") == "model") return artifact.value("path", "");
  }
  return "";
}

// The request of a folder's newest run. Submitting it again leads to the same jobs, so a run that was killed goes on
// where it was, with all trials that had ended; see FindRequest.
struct Request {
  std::string digest;  // of the specs
  std::string id;
};

std::string RequestPath(const std::string& dir) {
  return JoinPath(dir, "request");
}

// The newest run's request if it was for the same specs; empty otherwise.
std::string FindRequest(const std::string& dir, const std::string& digest) {
  const std::vector<std::string> words =
      absl::StrSplit(ReadFile(RequestPath(dir)).value_or(""), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  return words.size() == 2 && words[0] == digest ? words[1] : "";
}

std::string DigestOf(const std::vector<client::LoadedJob>& jobs) {
  std::string digests;
  for (const client::LoadedJob& job : jobs) digests += spec::RequestDigest(job.spec);
  return trainyard::DigestOf(digests);
}

absl::StatusOr<nlohmann::json> Record(Cluster& cluster, const std::string& job) {
  std::string text;
  TY_RETURN_IF_ERROR(cluster.Client({"get", job, "-o", "json"}, &text).status());
  return nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
}

bool HasEnded(const nlohmann::json& job) {
  const std::string state = job.is_object() ? job.value("state", "") : "";
  return state == "JOB_STATE_SUCCEEDED" || state == "JOB_STATE_FAILED" || state == "JOB_STATE_CANCELLED";
}

// Uids of the jobs, in the order of the file; none with *exit_code set if they are refused.
absl::StatusOr<std::vector<std::string>> Submit(const Flags& flags, const std::string& id, Cluster& cluster,
                                                int* exit_code) {
  std::vector<std::string> submit = {"submit", "-f", flags.file, "--quiet", "--request-id", id};
  for (const std::string& change : flags.overrides) submit.insert(submit.end(), {"--set", change});
  std::string output;
  TY_ASSIGN_OR_RETURN(*exit_code, cluster.Client(submit, &output));
  if (*exit_code != 0) {
    std::cerr << absl::StripAsciiWhitespace(output) << "\n";
    return std::vector<std::string>();
  }
  std::vector<std::string> uids;
  for (absl::string_view line : absl::StrSplit(output, '\n', absl::SkipWhitespace())) {
    if (!absl::StrContains(line, ' ')) uids.emplace_back(line);  // the others are remarks
  }
  return uids;
}

// The jobs that an earlier run left unended, or new ones.
absl::StatusOr<std::vector<std::string>> SubmitOrGoOn(const Flags& flags, const std::string& dir,
                                                      const std::string& digest, Cluster& cluster, int* exit_code) {
  if (const std::string known = FindRequest(dir, digest); !known.empty()) {
    TY_ASSIGN_OR_RETURN(std::vector<std::string> uids, Submit(flags, known, cluster, exit_code));
    bool is_open = false;
    for (const std::string& uid : uids) {
      TY_ASSIGN_OR_RETURN(const nlohmann::json record, Record(cluster, uid));
      is_open |= !HasEnded(record);
    }
    if (is_open || *exit_code != 0) {
      if (is_open) std::cout << "going on with what an earlier run in " << flags.dir << " left" << std::endl;
      return uids;
    }
  }
  const std::string fresh = NewUuid();
  // Before the submit: if we die in between, the next run submits the same request.
  TY_RETURN_IF_ERROR(WriteFileAtomic(RequestPath(dir), absl::StrCat(digest, " ", fresh, "\n")));
  return Submit(flags, fresh, cluster, exit_code);
}

absl::Status SubmitAndWatch(const Flags& flags, const std::string& dir, const std::string& digest, Cluster& cluster,
                            int* exit_code) {
  TY_ASSIGN_OR_RETURN(const std::vector<std::string> uids, SubmitOrGoOn(flags, dir, digest, cluster, exit_code));
  if (uids.empty()) return absl::OkStatus();
  std::cout << (uids.size() == 1 ? "job " : "jobs ") << absl::StrJoin(uids, ", ") << " at " << cluster.address()
            << ", everything below " << dir << std::endl;
  for (const std::string& job : uids) {
    TY_ASSIGN_OR_RETURN(const int code, cluster.Client({"watch", job}));
    if (*exit_code == 0) *exit_code = code;
    if (!interrupted.load()) continue;
    std::cerr << "\ncancelling and ending all processes\n";
    std::vector<std::string> cancel = uids;
    cancel.insert(cancel.begin(), {"cancel", "--quiet"});
    // Those that have ended say so, to the log.
    std::string ignored;
    TY_RETURN_IF_ERROR(cluster.Client(cancel, &ignored).status());
    *exit_code = kInterrupted;
    return absl::OkStatus();
  }
  std::string model;
  for (const std::string& job : uids) {
    TY_RETURN_IF_ERROR(cluster.Client({"get", job}).status());
    std::cout << std::endl;
    TY_ASSIGN_OR_RETURN(const nlohmann::json record, Record(cluster, job));
    if (const std::string path = ModelPath(record); !path.empty()) model = path;
  }
  std::cout << "Next:\n";
  if (!model.empty()) std::cout << "  trainyard generate --model " << model << " --prompt \"Once\"\n";
  std::cout << "  trainyard run -f " << flags.file << " --dir " << flags.dir << "   # again\n"
            << "  ls " << dir << "/*.log                      # what the processes said\n";
  return absl::OkStatus();
}

absl::Status Run(const Flags& flags, int* exit_code) {
  TY_ASSIGN_OR_RETURN(const std::vector<client::LoadedJob> jobs, client::LoadJobFile(flags.file, flags.overrides));
  // A driver takes a slot of its own, so what counts is the world of each job, or of a driver's trials.
  int ranks = 1;
  bool has_driver = false;
  for (const client::LoadedJob& job : jobs) {
    TY_ASSIGN_OR_RETURN(const spec::JobOptions options, spec::ParseJob(job.spec));
    ranks = std::max(ranks, options.world.max);
    has_driver |= spec::IsDriver(options.kind);
  }
  if (flags.parallel < 1 || flags.parallel > 64) {
    return absl::InvalidArgumentError(absl::StrCat("--parallel: ", flags.parallel, " not in [1, 64]"));
  }
  if (flags.parallel > 1 && jobs.size() == 1 && !has_driver) {
    return absl::InvalidArgumentError("--parallel: the job asks for no trials");
  }
  ranks *= flags.parallel;
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
  if (status.ok()) status = SubmitAndWatch(flags, dir, DigestOf(jobs), cluster, exit_code);
  cluster.Stop();
  if (interrupted.load()) *exit_code = kInterrupted;
  return interrupted.load() ? absl::OkStatus() : status;
}

}  // namespace

void AddRunCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<Flags>();
  CLI::App* const command =
      app.add_subcommand("run",
                         "Coordinator, workers and jobs in one process tree; Ctrl-C cancels and ends all. The same "
                         "file in the same folder goes on where a run was killed");
  command->add_option("job,-f,--file", flags->file, "Job file; --- between the jobs of a pipeline")->required();
  command->add_option("--set", flags->overrides, "path=value over the file, as often as wanted");
  command->add_option("--dir", flags->dir, "Folder for everything it writes")->capture_default_str();
  command->add_option("--data_root", flags->data_root, "Where relative paths of the job start")->capture_default_str();
  command->add_option("--workers", flags->workers, "Worker daemons; 0: one a rank, at most 8")->capture_default_str();
  command->add_option("--parallel", flags->parallel, "Trials, or jobs of a pipeline, at a time")->capture_default_str();
  command->callback([flags, exit_code] {
    int code = 0;
    const absl::Status status = Run(*flags, &code);
    *exit_code = status.ok() ? code : Finish(status);
  });
}

}  // namespace trainyard::tools
