#include "worker/daemon/daemon.h"

#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/daemon/processes.h"

namespace trainyard::daemon {

absl::StatusOr<std::unique_ptr<Daemon>> Daemon::Create(DaemonOptions options, Spawner spawner, Metrics* metrics,
                                                       std::unique_ptr<Nvml> nvml) {
  TY_RETURN_IF_ERROR(MakeDirs(JoinPath(options.state_dir, "tasks")));
  TY_RETURN_IF_ERROR(MakeDirs(options.job_root));
  absl::StatusOr<FileLock> lock = FileLock::Acquire(JoinPath(options.state_dir, "lock"));
  if (!lock.ok()) return Annotate(lock.status(), "another worker daemon uses this state folder");
  TY_ASSIGN_OR_RETURN(Fences fences, Fences::Open(JoinPath(options.state_dir, "fences")));
  TY_ASSIGN_OR_RETURN(Identity identity, NextIdentity(options.state_dir, options.host));
  TY_ASSIGN_OR_RETURN(LogSpool spool, LogSpool::Open({.directory = JoinPath(options.state_dir, "logs"),
                                                      .limit_bytes = options.log_limit_bytes}));
  std::unique_ptr<Daemon> daemon(new Daemon(std::move(options), std::move(spawner), metrics, *std::move(lock),
                                            std::move(identity), std::move(fences), std::move(spool)));
  TY_RETURN_IF_ERROR(daemon->TakeUpRecords());
  TY_RETURN_IF_ERROR(daemon->StartGpus(std::move(nvml)));
  return daemon;
}

Daemon::Daemon(DaemonOptions options, Spawner spawner, Metrics* metrics, FileLock lock, Identity identity,
               Fences fences, LogSpool spool)
    : options_(std::move(options)),
      spawner_(std::move(spawner)),
      metrics_(metrics),
      lock_(std::move(lock)),
      identity_(std::move(identity)),
      fences_(std::move(fences)),
      spool_(std::move(spool)),
      lease_(options_.clock->Monotonic()),
      slots_(static_cast<size_t>(options_.cpu_slots)) {
  for (const GpuIdentity& identity : options_.gpu.offered) {
    gpus_.push_back({.identity = identity, .facts = {}, .slot = static_cast<int>(slots_.size())});
    slots_.push_back({.type = v1::SLOT_TYPE_GPU,
                      .gpu = static_cast<int>(gpus_.size()) - 1,
                      .stuck = "",
                      .gpu_fault = "not looked at yet"});
  }
  for (int i = 0; i < options_.driver_slots; ++i) slots_.emplace_back().type = v1::SLOT_TYPE_DRIVER;
  loop_.Watch(spawner_.fd(), EPOLLIN, [this](uint32_t) { OnSpawnEvents(); });
}

Daemon::~Daemon() {
  // Their threads post to the loop.
  session_.reset();
  gpu_monitor_.reset();
}

absl::Status Daemon::TakeUpRecords() {
  TY_ASSIGN_OR_RETURN(const std::vector<TaskRecord> records, LoadTaskRecords(JoinPath(options_.state_dir, "tasks")));
  for (const TaskRecord& record : records) {
    const v1::AttemptRef& ref = record.report.ref();
    for (const auto& [rank, process] : record.processes) {
      if (KillLeftOver(process.pid, process.start_ticks, options_.kill_timeout)) continue;
      for (const v1::RankStatus& status : record.report.ranks()) {
        if (status.rank() != rank || !HasSlot(status.slot())) continue;
        Slot& slot = slots_[static_cast<size_t>(status.slot())];
        slot.stuck = absl::StrCat("process group ", process.pid, " of ", TaskName(ref), " cannot be killed");
        LogError("slot ", status.slot(), " is unhealthy: ", slot.stuck);
      }
    }
    Entry entry;
    entry.task = std::make_unique<Task>(record.report, TaskOptionsFor(nullptr), options_.clock->Now());
    entry.progress = std::make_unique<ProgressBuffer>(ref);
    entry.was_finished = true;
    LogInfo("task ", TaskName(ref), " of an earlier daemon is over; its end will be reported");
    Save(entry);
    tasks_[ref.fence()] = std::move(entry);
  }
  return absl::OkStatus();
}

absl::Status Daemon::Run() {
  TY_ASSIGN_OR_RETURN(
      session_,
      Session::Start(
          options_.session,
          {.on_open = [this](uint64_t generation) { loop_.Post([=, this] { OnOpen(generation); }); },
           .on_message =
               [this](uint64_t generation, v1::CoordinatorMessage message) {
                 loop_.Post([=, this] { OnMessage(generation, message); });
               },
           .on_closed = [this](uint64_t generation,
                               absl::Status status) { loop_.Post([=, this] { OnClosed(generation, status); }); }}));
  while (!end_) {
    loop_.RunOnce(options_.tick);
    metrics_->Tick();
    const absl::Duration now = options_.clock->Monotonic();
    TickGpus(now);
    TickTasks(now);
    TickSession(now);
    if (!is_draining_) continue;
    const bool all_over =
        std::all_of(tasks_.begin(), tasks_.end(), [](const auto& item) { return item.second.task->finished(); });
    if (!all_over) continue;
    drained_at_ = std::min(drained_at_, now);
    const bool all_reported = tasks_.empty() && spool_.idle();
    if (all_reported || now - drained_at_ >= options_.drain_report_timeout) end_ = absl::OkStatus();
  }
  session_.reset();
  // On the ways out that are not a drain, runners may live: the spawner ends them when our end of its socket closes.
  return *end_;
}

void Daemon::Drain() {
  loop_.Post([this] {
    LogInfo(is_draining_ ? "draining at once: tasks stop without a checkpoint"
                         : "draining: tasks stop with a checkpoint, no new ones are taken");
    StopAll(v1::STOP_REASON_DRAIN, /*checkpoint=*/!is_draining_, std::nullopt);
    is_draining_ = true;
    slots_changed_ = true;
  });
}

}  // namespace trainyard::daemon
