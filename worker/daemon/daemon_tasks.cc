// The daemon's side of tasks: from an assignment to an empty process group.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "proto/spec/job_options.h"
#include "worker/daemon/daemon.h"
#include "worker/daemon/proto_time.h"

namespace trainyard::daemon {
namespace {

constexpr size_t kLastLogLines = 20;

}  // namespace

Daemon::Entry* Daemon::FindEntry(const v1::AttemptRef& ref) {
  const auto it = tasks_.find(ref.fence());
  return it == tasks_.end() || it->second.task->ref().job_uid() != ref.job_uid() ? nullptr : &it->second;
}

TaskOptions Daemon::TaskOptionsFor(const v1::JobSpec* spec) const {
  TaskOptions options{.worker_id = identity_.worker_id,
                      .host_address = options_.address,
                      .quick_grace = options_.quick_grace,
                      .kill_timeout = options_.kill_timeout,
                      .hang = {}};
  if (spec == nullptr) return options;
  // A spec that this version cannot read is the runner's to refuse, as a permanent failure.
  const absl::StatusOr<spec::JobOptions> parsed = spec::ParseJob(*spec);
  if (parsed.ok()) {
    options.hang.factor = parsed->hang.factor;
    options.hang.floor = parsed->hang.floor;
    options.hang.warmup_steps = parsed->hang.warmup_steps;
  }
  return options;
}

bool Daemon::SlotIsBusy(int slot) const {
  for (const auto& [fence, entry] : tasks_) {
    for (const v1::RankStatus& status : entry.task->report().ranks()) {
      if (status.slot() == slot && status.state() != v1::TASK_STATE_EXITED) return true;
    }
  }
  return false;
}

absl::Status Daemon::Admit(const v1::Assign& assign) {
  if (is_draining_) return absl::UnavailableError("the worker is draining");
  if (assign.ranks().empty()) return absl::InvalidArgumentError("an assignment without ranks");
  for (const v1::RankAssignment& rank : assign.ranks()) {
    const int slot = rank.slot();
    if (!HasSlot(slot)) {
      return absl::InvalidArgumentError(absl::StrCat("slot ", slot, " not in [0, ", slots_.size(), ")"));
    }
    if (!slots_[static_cast<size_t>(slot)].is_healthy()) {
      return absl::UnavailableError(
          absl::StrCat("slot ", slot, " is unhealthy: ", slots_[static_cast<size_t>(slot)].message()));
    }
    if (SlotIsBusy(slot)) return absl::FailedPreconditionError(absl::StrCat("slot ", slot, " is busy"));
  }
  for (const v1::RankAssignment& rank : assign.ranks()) {
    TY_RETURN_IF_ERROR(fences_.AdmitFence(rank.slot(), assign.ref().fence()));
  }
  return absl::OkStatus();
}

void Daemon::Refuse(const v1::Assign& assign, const absl::Status& why) {
  LogWarning("refusing task ", TaskName(assign.ref()), ": ", why.message());
  Entry entry;
  entry.task = std::make_unique<Task>(assign, TaskOptionsFor(nullptr), options_.clock->Monotonic());
  entry.progress = std::make_unique<ProgressBuffer>(assign.ref());
  for (const v1::RankAssignment& rank : assign.ranks()) {
    entry.task->SpawnFailed(rank.rank(), why, options_.clock->Now(), options_.clock->Monotonic());
  }
  tasks_[assign.ref().fence()] = std::move(entry);
}

void Daemon::OnAssign(const v1::Assign& assign) {
  if (const absl::Status epoch = fences_.AdmitEpoch(assign.leader_epoch()); !epoch.ok()) {
    LogWarning("ignoring the assignment of ", TaskName(assign.ref()), ": ", epoch.message());
    return;
  }
  if (Entry* known = FindEntry(assign.ref())) {
    known->sent = 0;  // it asks again, so it may not know
    return;
  }
  if (const absl::Status admitted = Admit(assign); !admitted.ok()) return Refuse(assign, admitted);

  std::vector<int> ranks;
  for (const v1::RankAssignment& rank : assign.ranks()) ranks.push_back(rank.rank());
  absl::Status prepared = MakeDirs(JoinPath(options_.job_root, assign.job_dir()));
  if (prepared.ok()) prepared = spool_.AddTask(assign.ref(), ranks);
  if (!prepared.ok()) return Refuse(assign, prepared);

  const absl::Duration now = options_.clock->Monotonic();
  Entry& entry = tasks_[assign.ref().fence()];
  entry.task = std::make_unique<Task>(assign, TaskOptionsFor(&assign.spec()), now);
  entry.progress = std::make_unique<ProgressBuffer>(assign.ref());
  // On disk before anything runs.
  Save(entry);
  metrics_->TaskBegan(assign.ref().job_uid(), ranks);
  const bool has_gpu = std::any_of(assign.ranks().begin(), assign.ranks().end(), [&](const v1::RankAssignment& rank) {
    return slots_[static_cast<size_t>(rank.slot())].gpu >= 0;
  });
  for (const int rank : ranks) entry.goodput.emplace(rank, RankGoodput(assign.follows_failure(), has_gpu, now));
  if (has_gpu) {
    entry.gate = GpuWait{.ticket = AskGpus(now), .asked_at = now, .deadline = now + options_.gpu.silence_timeout};
  } else {
    StartRanks(entry);
  }
}

void Daemon::StartRanks(Entry& entry) {
  const v1::Assign& assign = entry.task->assign();
  LogInfo("task ", TaskName(assign.ref()), " (fence ", assign.ref().fence(), "): starting ", assign.ranks_size(),
          " of ", assign.world_size(), " ranks");
  for (const v1::RankAssignment& rank : assign.ranks()) {
    AddGoodput(entry, rank.rank(), entry.goodput.at(rank.rank()).Starting(options_.clock->Monotonic()));
    const absl::Status spawned = SpawnRank(entry, rank.rank(), rank.slot());
    if (spawned.ok()) continue;
    LogError("rank ", rank.rank(), " of ", TaskName(assign.ref()), " cannot be started: ", spawned.message());
    for (const char* stream : {"stdout", "stderr"}) spool_.End(assign.ref(), rank.rank(), stream);
    MapJob(SlotOf(entry, rank.rank()), "");
    entry.ranks.erase(rank.rank());
    entry.task->SpawnFailed(rank.rank(), spawned, options_.clock->Now(), options_.clock->Monotonic());
  }
}

absl::Status Daemon::SpawnRank(Entry& entry, int rank, int slot) {
  const uint64_t fence = entry.task->ref().fence();
  const v1::AttemptRef ref = entry.task->ref();
  RankProcess& process = entry.ranks[rank];
  TY_ASSIGN_OR_RETURN(FileLock lock, FileLock::Acquire(absl::StrCat(options_.state_dir, "/slot-", slot, ".lock")));
  process.lock.emplace(std::move(lock));
  RankIo::RunnerEnds ends;
  TY_ASSIGN_OR_RETURN(
      process.io,
      RankIo::Create(&loop_,
                     {.on_report = [=, this](v1::RunnerReport report) { OnReport(fence, rank, std::move(report)); },
                      .on_broken =
                          [=, this](absl::Status status) {
                            LogError("rank ", rank, " of ", TaskName(ref), ": ", status.message(), "; killing it");
                            const auto found = tasks_.find(fence);
                            if (found == tasks_.end()) return;
                            spawner_.Signal(found->second.ranks[rank].spawn_id, SIGKILL).IgnoreError();  // seen at once
                          },
                      .on_output = [=, this](const char* stream,
                                             absl::string_view bytes) { spool_.Append(ref, rank, stream, bytes); },
                      .on_output_end = [=, this](const char* stream) { spool_.End(ref, rank, stream); }},
                     &ends));
  QueueLaunch(entry, rank);  // first, whatever the coordinator says while the process starts
  process.spawn_id = next_spawn_id_++;
  SpawnRequest request;
  request.id = process.spawn_id;
  request.command = options_.runner;
  request.command.push_back(absl::StrCat("--link_fd=", kLinkFd));
  request.environment = EnvironmentFor(slots_[static_cast<size_t>(slot)]);
  MapJob(slots_[static_cast<size_t>(slot)], ref.job_uid());
  request.stdout_fd = ends.stdout_fd.get();
  request.stderr_fd = ends.stderr_fd.get();
  request.link_fd = ends.link_fd.get();
  request.lock_fd = process.lock->fd();
  TY_RETURN_IF_ERROR(spawner_.Spawn(request));
  spawned_[process.spawn_id] = {fence, rank};
  return absl::OkStatus();
}

void Daemon::QueueLaunch(Entry& entry, int rank) {
  const v1::Assign& assign = entry.task->assign();
  v1::RunnerCommand command;
  v1::Launch* launch = command.mutable_launch();
  *launch->mutable_ref() = assign.ref();
  *launch->mutable_spec() = assign.spec();
  launch->set_rank(rank);
  launch->set_world_size(assign.world_size());
  launch->set_job_dir(JoinPath(options_.job_root, assign.job_dir()));
  launch->set_data_root(options_.data_root);
  *launch->mutable_checkpoints() = assign.checkpoints();
  *launch->mutable_artifacts() = assign.artifacts();
  launch->set_address(options_.address);
  launch->set_follows_failure(assign.follows_failure());
  launch->set_reached_step(assign.reached_step());
  for (int i = 0; i < assign.ranks_size(); ++i) {
    if (assign.ranks(i).rank() == rank) launch->set_local_rank(i);
  }
  entry.ranks[rank].io->Send(command);
}

void Daemon::OnSpawnEvents() {
  const absl::StatusOr<std::vector<SpawnEvent>> events = spawner_.TakeEvents();
  if (!events.ok()) {
    loop_.Forget(spawner_.fd());
    // Its runners have died with it, but nobody can tell how: a new start of the daemon cleans up and reports.
    LogError(events.status().message(), "; leaving");
    end_ = events.status();
    return;
  }
  for (const SpawnEvent& event : *events) OnSpawnEvent(event);
}

void Daemon::OnSpawnEvent(const SpawnEvent& event) {
  const auto where = spawned_.find(event.id);
  if (where == spawned_.end()) return;
  const auto [fence, rank] = where->second;
  const auto found = tasks_.find(fence);
  if (found == tasks_.end()) return;
  Entry& entry = found->second;
  RankProcess& process = entry.ranks[rank];
  const v1::AttemptRef& ref = entry.task->ref();
  const absl::Time wall = options_.clock->Now();
  const absl::Duration now = options_.clock->Monotonic();
  switch (event.kind) {
    case SpawnEvent::Kind::kStarted:
      process.process = {event.pid, event.start_ticks};
      entry.task->Spawned(rank);
      Save(entry);  // the process on disk before it may begin
      process.io->Open();
      break;
    case SpawnEvent::Kind::kFailed:
      process.io->DrainOutput(/*close=*/true);
      entry.task->SpawnFailed(rank, ErrnoStatus(event.error, "start", options_.runner[0]), wall, now);
      MapJob(SlotOf(entry, rank), "");
      entry.ranks.erase(rank);
      spawned_.erase(where);
      break;
    case SpawnEvent::Kind::kEnded: {
      // What it said last counts, and comes by another way than its end.
      process.io->DrainLink();
      process.io->DrainOutput(/*close=*/false);
      ProcessEnd end;
      if (event.exit_code >= 0) end.exit_code = event.exit_code;
      if (event.signal >= 0) end.signal = event.signal;
      entry.task->Ended(rank, end, spool_.LastLines(ref, rank, kLastLogLines), wall, now);
      for (const v1::RankStatus& status : entry.task->report().ranks()) {
        if (status.rank() != rank) continue;
        metrics_->RankEnded(status.exit().reason());
        AddGoodput(entry, rank, entry.goodput.at(rank).Ended(status.succeeded(), SlotOf(entry, rank).gpu >= 0, now));
        LogInfo("rank ", rank, " of ", TaskName(ref), " ended: ", status.exit().reason(), ": ",
                status.exit().message());
      }
      break;
    }
    case SpawnEvent::Kind::kGone:
      process.io->DrainOutput(/*close=*/true);
      spawned_.erase(where);
      if (SlotOf(entry, rank).gpu < 0) {
        FreeSlot(entry, rank);
      } else {
        entry.task->Emptied(rank);
        process.release =
            GpuWait{.ticket = AskGpus(now), .asked_at = now, .deadline = now + options_.gpu.release_timeout};
      }
      break;
  }
}

Daemon::Slot& Daemon::SlotOf(const Entry& entry, int rank) {
  for (const v1::RankStatus& status : entry.task->report().ranks()) {
    if (status.rank() == rank) return slots_[static_cast<size_t>(status.slot())];
  }
  TY_CHECK(false);
}

void Daemon::FreeSlot(Entry& entry, int rank) {
  Slot& slot = SlotOf(entry, rank);
  if (!std::exchange(slot.stuck, "").empty()) slots_changed_ = true;
  MapJob(slot, "");
  entry.task->Gone(rank);
  entry.ranks.erase(rank);  // with the slot's lock
  AddGoodput(entry, rank, entry.goodput.at(rank).Gone(options_.clock->Monotonic()));
}

void Daemon::AddGoodput(const Entry& entry, int rank, const RankGoodput::Seconds& seconds) {
  metrics_->Goodput(entry.task->ref().job_uid(), rank, seconds);
}

void Daemon::OnReport(uint64_t fence, int rank, v1::RunnerReport report) {
  const auto found = tasks_.find(fence);
  if (found == tasks_.end()) return;
  Entry& entry = found->second;
  const absl::Time wall = options_.clock->Now();
  switch (report.report_case()) {
    case v1::RunnerReport::kReady:
      entry.task->Ready(rank, report.ready());
      break;
    case v1::RunnerReport::kProgress:
      entry.task->Progress(rank, report.progress(), options_.clock->Monotonic());
      metrics_->Progress(entry.task->ref().job_uid(), rank, report.progress(), wall);
      if (const auto book = entry.goodput.find(rank); book != entry.goodput.end()) {
        AddGoodput(entry, rank, book->second.Report(report.progress(), options_.clock->Monotonic()));
      }
      if (rank == 0) entry.progress->Add(report.progress(), wall);
      break;
    case v1::RunnerReport::kCommitCheckpoint:
      entry.commits[report.commit_checkpoint().step()] = report.commit_checkpoint();
      if (is_registered_) SendCommit(entry, report.commit_checkpoint());  // else at the next registration
      break;
    case v1::RunnerReport::kTrials:
      if (rank != 0) {
        LogWarning("rank ", rank, " of ", TaskName(entry.task->ref()), " asks for trials; only rank 0 may");
        break;
      }
      entry.trials = std::move(*report.mutable_trials());
      if (is_registered_) SendTrials(entry);  // else at the next registration
      break;
    case v1::RunnerReport::kFailure:
      entry.task->Failure(rank, report.failure(), wall);
      break;
    case v1::RunnerReport::kResult:
      entry.task->Result(rank, report.result());
      break;
    case v1::RunnerReport::REPORT_NOT_SET:
      break;
  }
}

void Daemon::StopAll(v1::StopReason reason, bool checkpoint, std::optional<absl::Duration> grace) {
  const absl::Duration now = options_.clock->Monotonic();
  for (auto& [fence, entry] : tasks_) {
    if (entry.task->finished()) continue;
    entry.task->Stop(reason, checkpoint, grace.value_or(FromProto(entry.task->assign().stop_grace())), now);
    Perform(entry);
  }
}

void Daemon::Save(Entry& entry) {
  TaskRecord record;
  record.report = entry.task->report();
  for (const auto& [rank, process] : entry.ranks) {
    if (process.process.pid > 0) record.processes[rank] = process.process;
  }
  entry.saved = record.report.sequence();
  const absl::Status saved = SaveTaskRecord(JoinPath(options_.state_dir, "tasks"), record);
  // Only matters if this daemon is killed too: then the coordinator learns a less exact reason.
  if (!saved.ok()) LogWarning("the record of task ", TaskName(record.report.ref()), " is old: ", saved.message());
}

void Daemon::Perform(Entry& entry) {
  for (const TaskAction& action : entry.task->TakeActions()) {
    const auto rank = entry.ranks.find(action.rank);
    if (rank == entry.ranks.end() || rank->second.io == nullptr) continue;
    if (action.kind == TaskAction::Kind::kSend) {
      rank->second.io->Send(action.command);
    } else {
      const int signal = action.kind == TaskAction::Kind::kKill ? SIGKILL : SIGTERM;
      spawner_.Signal(rank->second.spawn_id, signal).IgnoreError();  // a lost spawner ends the daemon anyway
    }
  }
}

void Daemon::TickTasks(absl::Duration now) {
  for (auto it = tasks_.begin(); it != tasks_.end();) {
    Entry& entry = it->second;
    entry.task->Tick(options_.clock->Now(), now);
    Perform(entry);
    for (const int slot : entry.task->stuck_slots()) {
      std::string& stuck = slots_[static_cast<size_t>(slot)].stuck;
      if (!stuck.empty()) continue;
      stuck = absl::StrCat("a process of ", TaskName(entry.task->ref()), " cannot be killed");
      LogError("slot ", slot, " is unhealthy: ", stuck);
      slots_changed_ = true;
    }
    if (entry.task->report().sequence() != entry.saved) Save(entry);
    if (entry.task->finished() && !std::exchange(entry.was_finished, true)) {
      metrics_->TaskEnded(entry.task->ref().job_uid());
      LogInfo("task ", TaskName(entry.task->ref()), " is over");
      if (is_draining_) slots_changed_ = true;
    }
    if (entry.task->finished() && entry.acked >= entry.task->report().sequence()) {
      Finish(entry);
      it = tasks_.erase(it);
    } else {
      ++it;
    }
  }
  CountSlots();
  metrics_->SetLogSpool(spool_.bytes_on_disk(), spool_.lost_bytes());
}

void Daemon::CountSlots() {
  Metrics::SlotCounts cpu, gpu, driver;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    Metrics::SlotCounts& counts = slot.type == v1::SLOT_TYPE_DRIVER ? driver : slot.gpu >= 0 ? gpu : cpu;
    if (!slot.is_healthy()) {
      ++counts.unhealthy;
    } else {
      ++(IsOccupied(static_cast<int>(i)) ? counts.busy : counts.free);
    }
  }
  metrics_->SetSlots(cpu, gpu, driver);
}

void Daemon::Finish(Entry& entry) {
  RemoveTaskRecord(JoinPath(options_.state_dir, "tasks"), entry.task->ref());
  if (entry.quarantine_dir.empty()) return;
  const std::string from = JoinPath(options_.job_root, entry.quarantine_dir);
  const std::string to = absl::StrCat(options_.job_root, "/quarantine/", entry.task->ref().job_uid());
  absl::Status moved = MakeDirs(JoinPath(options_.job_root, "quarantine"));
  if (moved.ok() && std::rename(from.c_str(), to.c_str()) != 0) moved = ErrnoStatus(errno, "rename", from);
  LogWarning("the coordinator does not know job ", entry.task->ref().job_uid(), "; its files ",
             moved.ok() ? absl::StrCat("are now in ", to) : absl::StrCat("stay: ", moved.message()));
}

}  // namespace trainyard::daemon
