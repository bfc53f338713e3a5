// A runner that does as the spec's annotation "do" says: words separated by blanks, done in order.
//   ready            reports READY and waits for the start, or a stop (then exits 0)
//   steps:<n>        reports steps 1..n, 1 ms apart
//   train            reports steps until it is stopped, then exits 0
//   checkpoint       asks to commit step 10, prints and sends the verdict as a metric "verdict"
//   trials:<n>       asks for generation n of three trials and waits for all outcomes, a refusal or a stop; prints each
//                    message as "generation <n>: <indices> done|more|refused <code>"
//   artifacts        prints what references mean: "<job>/<artifact> <path>"
//   print:<n>        writes n numbered lines to stdout
//   env:<name>       prints "<name>=<value>", or "<name> is unset"
//   child            starts a sleeping child and prints its pid
//   deaf             ignores StopRunner and SIGTERM from here on
//   result           reports a result
//   fail:<reason>    reports a USER failure
//   exit:<code>      exits
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/mutex.h"
#include "worker/runner/link.h"

namespace trainyard::runner {
namespace {

std::atomic<bool> is_deaf{false};
std::atomic<bool> stopped{false};

void OnTerminate(int) {
  stopped = true;
}

struct Inbox {
  Mutex mutex;
  CondVar changed;
  std::vector<v1::RunnerCommand> commands ABSL_GUARDED_BY(mutex);
};

// The next command of that kind, or an empty one once stopped.
v1::RunnerCommand Wait(Inbox& inbox, v1::RunnerCommand::CommandCase kind) {
  MutexLock lock(&inbox.mutex);
  while (!stopped || is_deaf) {
    for (const v1::RunnerCommand& command : inbox.commands) {
      if (command.command_case() == kind) return command;
    }
    inbox.changed.WaitFor(&inbox.mutex, absl::Milliseconds(5));
  }
  return {};
}

void Step(Link& link, int64_t step, double verdict = -1) {
  v1::RunnerReport report;
  v1::RankProgress* progress = report.mutable_progress();
  progress->set_step(step);
  progress->set_total_steps(1000);
  progress->set_section("train");
  (*progress->mutable_values())["loss"] = 1.0 / static_cast<double>(step);
  (*progress->mutable_values())["tokens"] = 100;
  if (verdict >= 0) (*progress->mutable_values())["verdict"] = verdict;
  (*progress->mutable_goodput_seconds())["productive"] = 0.001;
  link.Send(report).IgnoreError();
}

void AskForTrials(Link& link, Inbox& inbox, int number) {
  v1::RunnerReport report;
  report.mutable_trials()->set_number(number);
  for (int i = 0; i < 3; ++i) report.mutable_trials()->add_specs()->set_name("trial");
  link.Send(report).IgnoreError();
  size_t seen = 0;
  while (!stopped) {
    v1::TrialOutcomes news;
    {
      MutexLock lock(&inbox.mutex);
      if (seen == inbox.commands.size()) {
        inbox.changed.WaitFor(&inbox.mutex, absl::Milliseconds(5));
        continue;
      }
      const v1::RunnerCommand& command = inbox.commands[seen++];
      if (!command.has_trial_outcomes()) continue;
      news = command.trial_outcomes();
    }
    if (news.generation() != number) continue;
    std::printf("generation %d:", number);
    for (const v1::TrialOutcome& outcome : news.outcomes()) std::printf(" %d", outcome.index());
    if (news.code() != 0) std::printf(" refused %d", news.code());
    std::printf("%s\n", news.code() != 0 ? "" : news.done() ? " done" : " more");
    std::fflush(stdout);
    if (news.done() || news.code() != 0) return;
  }
}

int Run(int fd) {
  signal(SIGTERM, OnTerminate);
  auto* inbox = new Inbox();
  Link& link = *Link::Start(UniqueFd(fd), {.on_command =
                                               [=](v1::RunnerCommand command) {
                                                 if (command.has_stop()) stopped = true;
                                                 MutexLock lock(&inbox->mutex);
                                                 inbox->commands.push_back(std::move(command));
                                                 inbox->changed.NotifyAll();
                                               },
                                           .on_closed = [](absl::Status) { _exit(75); }})
                    .release();
  const v1::Launch launch = Wait(*inbox, v1::RunnerCommand::kLaunch).launch();
  std::string script;
  // "do.<rank>" is for one rank alone.
  for (const std::string& name : {std::string("do"), "do." + std::to_string(launch.rank())}) {
    const auto found = launch.spec().annotations().find(name);
    if (found != launch.spec().annotations().end()) script = found->second;
  }
  int64_t step = 0;
  for (const std::string& word : std::vector<std::string>(absl::StrSplit(script, ' ', absl::SkipEmpty()))) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(word, absl::MaxSplits(':', 1));
    const std::string& verb = parts.first;
    const int count = std::atoi(parts.second.c_str());
    v1::RunnerReport report;
    if (verb == "ready") {
      report.mutable_ready()->set_comm_address("address of rank " + std::to_string(launch.rank()));
      link.Send(report).IgnoreError();
      if (!Wait(*inbox, v1::RunnerCommand::kStart).has_start()) return 0;
    } else if (verb == "steps") {
      for (int i = 0; i < count; ++i) {
        Step(link, ++step);
        poll(nullptr, 0, 1);
      }
    } else if (verb == "train") {
      while (!stopped || is_deaf) {
        Step(link, ++step);
        poll(nullptr, 0, 5);
      }
      return 0;
    } else if (verb == "checkpoint") {
      report.mutable_commit_checkpoint()->set_step(10);
      link.Send(report).IgnoreError();
      const v1::RunnerCommand reply = Wait(*inbox, v1::RunnerCommand::kCheckpointReply);
      Step(link, 10, reply.checkpoint_reply().code());
    } else if (verb == "trials") {
      AskForTrials(link, *inbox, count);
      if (stopped) return 0;
    } else if (verb == "artifacts") {
      for (const v1::ResolvedArtifact& artifact : launch.artifacts()) {
        std::printf("%s/%s %s\n", artifact.ref().job().c_str(), artifact.ref().artifact().c_str(),
                    artifact.path().c_str());
      }
      std::fflush(stdout);
    } else if (verb == "print") {
      for (int i = 0; i < count; ++i) std::printf("line %d\n", i);
      std::fflush(stdout);
    } else if (verb == "env") {
      const char* value = std::getenv(parts.second.c_str());
      std::printf(value == nullptr ? "%s is unset\n" : "%s=%s\n", parts.second.c_str(), value);
      std::fflush(stdout);
    } else if (verb == "child") {
      const pid_t child = fork();
      if (child == 0) {
        poll(nullptr, 0, 1'000'000);
        _exit(0);
      }
      std::printf("child %d\n", static_cast<int>(child));
      std::fflush(stdout);
    } else if (verb == "deaf") {
      is_deaf = true;
    } else if (verb == "result") {
      report.mutable_result()->add_samples("once upon a time");
      link.Send(report).IgnoreError();
    } else if (verb == "fail") {
      report.mutable_failure()->set_failure_class(v1::FAILURE_CLASS_USER);
      report.mutable_failure()->set_reason(parts.second);
      link.Send(report).IgnoreError();
      std::fprintf(stderr, "failing: %s\n", parts.second.c_str());
    } else if (verb == "exit") {
      return count;
    }
  }
  return 0;
}

}  // namespace
}  // namespace trainyard::runner

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (absl::StartsWith(argument, "--link_fd=")) {
      _exit(trainyard::runner::Run(std::atoi(argument.c_str() + 10)));
    }
  }
  return 2;
}
