// Many workers without processes, for checks and measurements with more of them than a machine can run: each registers,
// takes what it is given and says that it runs, and reports a step of each of its tasks now and then. They leave when
// standard input ends.
//
//   fake_workers --coordinator HOST:PORT [--count 1000] [--slots 4] [--progress_seconds 1]
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/descriptor_limit.h"
#include "coordinator/testing/fake_worker.h"

namespace trainyard::coordinator {
namespace {

struct RunningTask {
  v1::AttemptRef ref;
  int64_t step = 0;
};

struct Member {
  std::unique_ptr<FakeWorker> worker;
  std::vector<RunningTask> tasks;
};

void TakeTasks(Member* member) {
  while (const auto start = member->worker->Await(IsStart, absl::ZeroDuration())) {
    member->tasks.push_back({.ref = start->start().ref()});
  }
  while (const auto stop = member->worker->Await(IsStop, absl::ZeroDuration())) {
    std::erase_if(member->tasks,
                  [&](const RunningTask& task) { return task.ref.fence() == stop->stop().ref().fence(); });
  }
}

void Report(Member* member) {
  for (RunningTask& task : member->tasks) {
    v1::WorkerMessage message;
    v1::ProgressReport& report = *message.mutable_progress();
    *report.mutable_ref() = task.ref;
    v1::JobProgress& progress = *report.mutable_progress();
    progress.set_step(++task.step);
    progress.set_total_steps(1'000'000);
    (*progress.mutable_values())["loss"] = 2 + 4 / std::sqrt(static_cast<double>(task.step));
    (*progress.mutable_values())["tokens_per_second"] = 50'000;
    v1::MetricSample& sample = *report.add_samples();
    sample.set_step(task.step);
    *sample.mutable_values() = progress.values();
    member->worker->Send(message);
  }
}

bool InputHasEnded(absl::Duration patience) {
  pollfd wait = {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
  if (poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(patience))) <= 0) return false;
  char byte;
  return read(STDIN_FILENO, &byte, 1) <= 0;
}

}  // namespace
}  // namespace trainyard::coordinator

int main(int argc, char** argv) {
  using namespace trainyard::coordinator;
  std::string coordinator;
  int count = 1000, slots = 4;
  double progress_seconds = 1;
  CLI::App app("Workers without processes.");
  app.add_option("--coordinator", coordinator)->required();
  app.add_option("--count", count)->check(CLI::Range(1, 10'000));
  app.add_option("--slots", slots)->check(CLI::Range(1, 1024));
  app.add_option("--progress_seconds", progress_seconds, "Between two reports of a task")
      ->check(CLI::Range(0.1, 3600.0));
  CLI11_PARSE(app, argc, argv);
  trainyard::RaiseDescriptorLimit();
  std::vector<Member> members;
  for (int i = 0; i < count; ++i) {
    // A third of the coordinator's default lease.
    members.push_back({.worker = FakeWorker::Start({.coordinator = coordinator,
                                                    .worker_id = absl::StrFormat("fake-%04d", i),
                                                    .slots = slots,
                                                    .heartbeat_interval = absl::Seconds(3)}),
                       .tasks = {}});
  }
  for (Member& member : members) member.worker->Await(IsRegistered, absl::Seconds(60));
  std::printf("%d workers are registered\n", count);
  std::fflush(stdout);
  do {
    for (Member& member : members) {
      TakeTasks(&member);
      Report(&member);
    }
  } while (!InputHasEnded(absl::Seconds(progress_seconds)));
}
