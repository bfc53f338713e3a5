#include "client/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "base/arguments.h"
#include "client/certs.h"
#include "client/commands.h"
#include "client/duration_text.h"
#include "client/proto_names.h"
#include "client/study.h"

namespace trainyard::client {
namespace {

struct GlobalFlags {
  std::string address;
  std::string name_space;
  std::string output;
  std::string timeout = "10s";
  bool insecure = false;
  TlsFiles tls;
};

// What the flags selected. `needs_server` commands get a connection first.
struct Selected {
  std::function<int(Context&)> run;
  bool needs_server = true;
};

void AddGlobalFlags(CLI::App& app, GlobalFlags& flags, Context& context) {
  app.add_option("--address", flags.address, "Coordinator, host:port [TRAINYARD_ADDRESS; 127.0.0.1:7070]");
  app.add_option("-n,--namespace", flags.name_space, "Namespace [TRAINYARD_NAMESPACE; default]");
  app.add_option("-o,--output", flags.output, "table, wide, json, yaml, jsonl or name");
  app.add_option("--call-timeout", flags.timeout, "Longest wait for one answer")->capture_default_str();
  app.add_flag("--insecure", flags.insecure, "Plaintext to an address that is not this machine");
  app.add_option("--tls_cert", flags.tls.cert, "PEM certificate, for mutual TLS [TRAINYARD_TLS_CERT]");
  app.add_option("--tls_key", flags.tls.key, "PEM private key of --tls_cert [TRAINYARD_TLS_KEY]");
  app.add_option("--tls_ca", flags.tls.ca, "PEM certificate of the cluster's CA [TRAINYARD_TLS_CA]");
  app.add_flag("-q,--quiet", context.quiet, "Print ids only");
}

CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& description) {
  CLI::App* command = app.add_subcommand(name, description);
  command->fallthrough();  // global flags may follow the command
  return command;
}

void AddJobCommands(CLI::App& app, Selected& selected) {
  auto submit = std::make_shared<SubmitOptions>();
  CLI::App* command = AddCommand(app, "submit", "Hand the jobs of a file to the coordinator: all of them, or none");
  command->add_option("-f,--file", submit->file, "Job file: .yaml, .json or .textproto; - for stdin. --- between jobs")
      ->required();
  command->add_option("--set", submit->overrides, "path=value: replace a field, for example training.steps=100")
      ->allow_extra_args(false);
  command->add_option("--dry-run", submit->dry_run, "client: check the file only; server: ask the coordinator too")
      ->check(CLI::IsMember({"client", "server"}));
  command->add_option("--request-id", submit->request_id, "Repeat with the same id to get the same jobs");
  command->add_flag("-w,--watch", submit->watch, "Then watch it; of several jobs the last");
  command->callback([submit, &selected] {
    selected.needs_server = submit->dry_run != "client";
    selected.run = [submit](Context& context) { return RunSubmit(*submit, context); };
  });

  const auto add_one_job = [&](const char* name, const char* description, int (*run)(const std::string&, Context&)) {
    auto job = std::make_shared<std::string>();
    CLI::App* one = AddCommand(app, name, description);
    one->add_option("job", *job, "Name or uid")->required();
    one->callback(
        [job, run, &selected] { selected.run = [job, run](Context& context) { return run(*job, context); }; });
  };
  auto get = std::make_shared<GetOptions>();
  command = AddCommand(app, "get", "Show one job");
  command->add_option("job", get->job, "Name or uid")->required();
  auto* trials = command->add_flag("--trials", get->trials, "Its trials, counted by generation");
  auto* generation = command->add_option("--generation", get->generation, "The trials of one generation, with results")
                         ->check(CLI::PositiveNumber);
  command->add_option("--document", get->document, "A document of its result, for example report: JSON as it is")
      ->excludes(trials)
      ->excludes(generation);
  command->callback([get, &selected] { selected.run = [get](Context& context) { return RunGet(*get, context); }; });

  add_one_job("watch", "Follow a job's progress; Ctrl-C leaves it running", RunWatch);
  add_one_job("explain", "Why a job waits, or how it ended", RunExplain);

  auto list = std::make_shared<ListOptions>();
  command = AddCommand(app, "list", "Show jobs");
  command->add_option("--filter", list->filter, "Terms joined by AND: state=RUNNING, queue=q, label.team=nlp, kind=k");
  command->add_flag("-A,--all-namespaces", list->all_namespaces, "Of every namespace");
  command->add_flag("--all", list->trials, "Trials too");
  command->add_option("--parent", list->parent, "Only the trials of this job, name or uid");
  command->add_option("--limit", list->limit, "At most so many")->check(CLI::PositiveNumber);
  command->callback([list, &selected] { selected.run = [list](Context& c) { return RunList(*list, c); }; });

  const auto add_action = [&](const char* name, const char* description, JobAction action) {
    auto options = std::make_shared<ActionOptions>();
    CLI::App* one = AddCommand(app, name, description);
    one->add_option("job", options->jobs, "Names or uids")->required();
    one->add_option("--request-id", options->request_id, "Repeat with the same id for the same effect");
    one->callback([options, action, &selected] {
      selected.run = [options, action](Context& context) { return RunAction(action, *options, context); };
    });
  };
  add_action("cancel", "End jobs and their trials, with a checkpoint if the grace allows", JobAction::kCancel);
  add_action("suspend", "Take jobs off their slots until they are resumed", JobAction::kSuspend);
  add_action("resume", "Queue suspended jobs again", JobAction::kResume);
}

void AddReadingCommands(CLI::App& app, Selected& selected) {
  auto logs = std::make_shared<LogsOptions>();
  CLI::App* command = AddCommand(app, "logs", "Show what a job's ranks print");
  command->add_option("job", logs->job, "Name or uid")->required();
  command->add_flag("-f,--follow", logs->follow, "Go on until the attempt ends");
  command->add_option("--rank", logs->rank, "Of one rank")->check(CLI::NonNegativeNumber);
  auto* attempt =
      command->add_option("--attempt", logs->attempt, "Of this attempt, not the newest")->check(CLI::PositiveNumber);
  command->add_flag("--previous", logs->previous, "Of the attempt before the newest")->excludes(attempt);
  command->add_option("--since", logs->since, "Only the last 10m, 1h30m, ...");
  command->add_option("--stream", logs->stream, "stdout or stderr")->check(CLI::IsMember({"stdout", "stderr"}));
  command->callback([logs, &selected] { selected.run = [logs](Context& c) { return RunLogs(*logs, c); }; });

  auto metrics = std::make_shared<MetricsOptions>();
  command = AddCommand(app, "metrics", "Show a job's numbers by step");
  command->add_option("job", metrics->job, "Name or uid")->required();
  command->add_option("--names", metrics->names, "Which, separated by commas")->delimiter(',')->allow_extra_args(false);
  command->add_option("--after-step", metrics->after_step, "Only later steps");
  command->add_option("--max-points", metrics->max_points, "Thin out to so many")->check(CLI::NonNegativeNumber);
  command->add_flag("--plot", metrics->plot, "Draw them");
  command->callback([metrics, &selected] { selected.run = [metrics](Context& c) { return RunMetrics(*metrics, c); }; });

  auto wait = std::make_shared<WaitOptions>();
  command = AddCommand(app, "wait", "Return when a job has reached a state");
  command->add_option("job", wait->job, "Name or uid")->required();
  command->add_option("--for", wait->state, "finished, or a state: running, succeeded, ...")->capture_default_str();
  command->add_option("--timeout", wait->timeout, "Give up (exit code 5) after 90s, 10m, ...");
  command->callback([wait, &selected] { selected.run = [wait](Context& c) { return RunWait(*wait, c); }; });

  AddCommand(app, "workers", "Show workers and their slots")->callback([&selected] { selected.run = RunWorkers; });
  CLI::App* worker = AddCommand(app, "worker", "Change what the coordinator knows of a worker");
  worker->require_subcommand(1);
  auto forgotten = std::make_shared<std::vector<std::string>>();
  command = AddCommand(*worker, "forget", "Take lost workers off the list that will never come back");
  command->add_option("worker", *forgotten, "Their ids")->required();
  command->callback([forgotten, &selected] {
    selected.run = [forgotten](Context& context) { return RunForgetWorkers(*forgotten, context); };
  });

  auto client_only = std::make_shared<bool>(false);
  command = AddCommand(app, "version", "Show versions");
  command->add_flag("--client", *client_only, "Of this program only");
  command->callback([client_only, &selected] {
    selected.needs_server = !*client_only;
    selected.run = [client_only](Context& context) { return RunVersion(*client_only, context); };
  });
}

std::vector<CommandWords> WordsOf(const CLI::App& app) {
  std::vector<CommandWords> words;
  for (const CLI::App* command : app.get_subcommands({})) {
    CommandWords entry{command->get_name(), command->get_description(), {}};
    for (const CLI::App* level : {command, &app}) {
      for (const CLI::Option* option : level->get_options()) {
        for (const std::string& name : option->get_lnames()) entry.options.push_back("--" + name);
      }
    }
    words.push_back(std::move(entry));
  }
  return words;
}

absl::Status Resolve(const GlobalFlags& flags, Context* context) {
  if (!flags.address.empty()) context->settings.address = flags.address;
  if (!flags.name_space.empty()) context->settings.name_space = flags.name_space;
  if (flags.insecure) context->settings.insecure = true;
  if (!flags.tls.cert.empty()) context->settings.tls.cert = flags.tls.cert;
  if (!flags.tls.key.empty()) context->settings.tls.key = flags.tls.key;
  if (!flags.tls.ca.empty()) context->settings.tls.ca = flags.tls.ca;
  if (!flags.output.empty()) {
    const auto format = ParseOutputFormat(flags.output);
    if (!format.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--output ", flags.output, ": not one of table, wide, json, yaml, jsonl, name"));
    }
    context->settings.output = *format;
  }
  return absl::OkStatus();
}

constexpr char kFooter[] =
    "Exit codes: 0 ok, 1 the call failed, 2 usage, 3 not found, 4 denied, 5 wait timed out, 6 the job ended without "
    "success.\nSettings: ~/.config/trainyard/config.yaml (address, namespace, insecure, output, tls_cert, tls_key, "
    "tls_ca), then the "
    "environment, "
    "then flags.";

}  // namespace

int RunCli(const std::vector<std::string>& args, Environment env) {
  // The local tools parse their own flags.
  if (!args.empty() && IsLocalCommand(args[0])) return RunLocal(args, env);

  Context context;
  context.env = env;
  GlobalFlags flags;
  Selected selected;
  CLI::App app("Trainyard: submit training jobs and see what they do", "trainyard");
  app.require_subcommand(1);
  app.footer(kFooter);
  AddGlobalFlags(app, flags, context);
  AddJobCommands(app, selected);
  AddReadingCommands(app, selected);
  AddCertsCommand(app, [&](auto run, bool needs_server) { selected = {std::move(run), needs_server}; });
  AddStudyCommand(app, [&](auto run, bool needs_server) { selected = {std::move(run), needs_server}; });
  for (const auto& [name, description] : LocalCommands()) {
    CLI::App* command = AddCommand(app, name, description);
    command->prefix_command();
    command->callback([&selected, name = name] {
      selected.needs_server = false;
      selected.run = [name](Context& context) {
        context.err() << "trainyard: write '" << name << "' first, before any flag\n";
        return kExitUsage;
      };
    });
  }
  auto shell = std::make_shared<std::string>();
  CLI::App* completion = AddCommand(app, "completion", "Print a completion script");
  completion->add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->callback([&, shell] {
    selected.needs_server = false;
    selected.run = [&, shell](Context&) {
      context.out() << CompletionScript(*shell, WordsOf(app));
      return kExitOk;
    };
  });

  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  const bool is_known = args.empty() || std::find(names.begin(), names.end(), args[0]) != names.end();
  if (!is_known && args[0].rfind('-', 0) != 0) {
    const std::string closest = ClosestName(args[0], names);
    *env.err << "trainyard: there is no command '" << args[0] << "'"
             << (closest.empty() ? "" : absl::StrCat(", did you mean ", closest, "?")) << "; see trainyard --help\n";
    return kExitUsage;
  }
  try {
    const std::vector<std::string> split = SplitEmptyValues(args);
    std::vector<std::string> reversed(split.rbegin(), split.rend());  // the order that CLI11 takes
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, *env.out, *env.err) == 0 ? kExitOk : kExitUsage;
  } catch (const std::exception& error) {
    *env.err << "trainyard: " << error.what() << "\n";
    return kExitUsage;
  }

  auto settings = LoadSettings(env.get_env);
  if (settings.ok()) context.settings = *std::move(settings);
  absl::Status status = settings.ok() ? Resolve(flags, &context) : settings.status();
  const auto timeout = ParseDurationText(flags.timeout);
  if (status.ok() && (!timeout.has_value() || *timeout <= absl::ZeroDuration())) {
    status = absl::InvalidArgumentError(absl::StrCat("--call-timeout ", flags.timeout, ": not a duration such as 10s"));
  }
  if (status.ok() && selected.needs_server) {
    auto jobs = JobsClient::Create({.address = context.settings.address,
                                    .security = {.insecure = context.settings.insecure, .tls = context.settings.tls},
                                    .timeout = *timeout,
                                    .interrupt = env.interrupt});
    if (jobs.ok()) context.jobs = *std::move(jobs);
    status = jobs.status();
  }
  if (!status.ok()) {
    *env.err << "trainyard: " << status.message() << "\n";
    return kExitUsage;
  }
  return selected.run(context);
}

}  // namespace trainyard::client
