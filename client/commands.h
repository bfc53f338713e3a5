// The commands. Each has its options as a struct and a function that runs it and returns the exit code; cli.cc maps
// flags to them. `job` is always a uid or a name.
#pragma once

#include <string>
#include <vector>

#include "client/context.h"

namespace trainyard::client {

struct SubmitOptions {
  std::string file;
  std::vector<std::string> overrides;  // "path=value"
  std::string dry_run;                 // "", "client", "server"
  std::string request_id;              // empty: a fresh one
  bool watch = false;
};
int RunSubmit(const SubmitOptions& options, Context& context);

struct GetOptions {
  std::string job;
  bool trials = false;
  int64_t generation = 0;  // > 0: the trials of this one
  std::string document;    // of the result, instead of all the rest
};
int RunGet(const GetOptions& options, Context& context);

struct ListOptions {
  std::string filter;
  bool all_namespaces = false;
  std::string parent;  // trials of this job
  bool trials = false;
  int limit = 0;  // 0: all
};
int RunList(const ListOptions& options, Context& context);
// All pages of a list, or as many jobs as `limit` says.
absl::StatusOr<v1::ListResponse> ListAll(Context& context, v1::ListRequest request, int limit);

int RunWatch(const std::string& job, Context& context);

struct LogsOptions {
  std::string job;
  bool follow = false;
  int rank = -1;    // -1: all
  int attempt = 0;  // 0: the newest
  bool previous = false;
  std::string since;   // a duration; empty: from the start
  std::string stream;  // "stdout", "stderr", empty: both
};
int RunLogs(const LogsOptions& options, Context& context);

struct MetricsOptions {
  std::string job;
  std::vector<std::string> names;  // empty: all; loss for a plot
  int64_t after_step = -1;
  int max_points = 0;
  bool plot = false;
};
int RunMetrics(const MetricsOptions& options, Context& context);

enum class JobAction { kCancel, kSuspend, kResume };
struct ActionOptions {
  std::vector<std::string> jobs;
  std::string request_id;
};
int RunAction(JobAction action, const ActionOptions& options, Context& context);

struct WaitOptions {
  std::string job;
  std::string state = "finished";  // or a state's name
  std::string timeout;             // a duration; empty: for ever
};
int RunWait(const WaitOptions& options, Context& context);

int RunWorkers(Context& context);
// Takes each off the coordinator's list; those after one that is refused are not asked for.
int RunForgetWorkers(const std::vector<std::string>& ids, Context& context);
int RunExplain(const std::string& job, Context& context);
int RunVersion(bool client_only, Context& context);

// The commands that trainyard-local has: plan, data, generate, eval, run.
const std::vector<std::pair<std::string, std::string>>& LocalCommands();  // name, description
bool IsLocalCommand(const std::string& name);
// Replaces this process by trainyard-local with `args`; returns only if that fails.
int RunLocal(const std::vector<std::string>& args, const Environment& env);

// A script for "bash", "zsh" or "fish". `commands` are names with their options ("--follow").
struct CommandWords {
  std::string name;
  std::string description;
  std::vector<std::string> options;
};
std::string CompletionScript(const std::string& shell, const std::vector<CommandWords>& commands);

}  // namespace trainyard::client
