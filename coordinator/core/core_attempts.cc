// Attempts and their tasks, from reservation to what follows their end.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/backoff.h"
#include "base/check.h"
#include "coordinator/core/core.h"
#include "coordinator/core/exit_class.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"

namespace trainyard::coordinator {
namespace {

constexpr int kAttemptsKept = 32;                          // in a job's record; older ones are dropped
constexpr absl::Duration kStopMargin = absl::Seconds(10);  // I18
// A job is read, and a trial's outcome told, in one message; a session carries far larger ones.
constexpr size_t kMaxResultBytes = 2 << 20;

void SetState(v1::Attempt& attempt, v1::AttemptState to) {
  TY_CHECK(CanChange(attempt.state(), to));
  attempt.set_state(to);
}

// Ended because we stopped it, as opposed to by a failure of its own while the stop was under way.
bool EndedByOurStop(const v1::ExitRecord& exit) {
  if (exit.failure_class() == v1::FAILURE_CLASS_CONTROL) return true;
  if (exit.failure_class() != v1::FAILURE_CLASS_UNSPECIFIED) return false;
  if (exit.has_signal()) return exit.signal() == 9 || exit.signal() == 15;
  return exit.exit_code() == 0 || exit.exit_code() == 128 + 9 || exit.exit_code() == 128 + 15;
}

uint64_t HashOf(const std::string& text) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const unsigned char c : text) hash = (hash ^ c) * 0x100000001B3ull;
  return hash;
}

}  // namespace

v1::Attempt* Core::LiveAttempt(JobEntry& entry) {
  if (entry.job().attempts_size() == 0) return nullptr;
  v1::Attempt* last = entry.job().mutable_attempts(entry.job().attempts_size() - 1);
  return IsTerminal(last->state()) ? nullptr : last;
}

const v1::Attempt* Core::LiveAttempt(const JobEntry& entry) {
  if (entry.job().attempts_size() == 0) return nullptr;
  const v1::Attempt& last = entry.job().attempts(entry.job().attempts_size() - 1);
  return IsTerminal(last.state()) ? nullptr : &last;
}

TaskRecord* Core::FindTask(JobEntry& entry, const std::string& worker_id, uint64_t fence) {
  for (TaskRecord& task : *entry.record.mutable_tasks()) {
    if (task.fence() == fence && task.worker_id() == worker_id) return &task;
  }
  return nullptr;
}

bool Core::IsLive(const v1::AttemptRef& ref) const {
  const JobEntry* entry = FindEntry(ref.job_uid());
  if (entry == nullptr) return false;
  const v1::Attempt* attempt = LiveAttempt(*entry);
  return attempt != nullptr && attempt->fence() == ref.fence() && attempt->number() == ref.attempt();
}

void Core::CreateAttempt(JobEntry& entry, const std::vector<v1::RankPlace>& places, Now now, Effects* effects) {
  TY_CHECK(LiveAttempt(entry) == nullptr);  // I4
  JobRecord& record = Touch(entry).record;
  v1::Job& job = entry.job();
  record.set_attempt_count(record.attempt_count() + 1);
  record.set_attempt_first_step(job.committed_step());
  record.clear_retry_time();
  entry.retry_at = -absl::InfiniteDuration();
  if (IsIn(entry, RecoveryRecord::PHASE_PLACE)) {
    effects->recovery_times.push_back({RecoveryPhase::kPlace, now.mono - entry.recovery_since});
    EnterRecoveryPhase(entry, RecoveryRecord::PHASE_START, now);
  }

  job.add_attempts();
  if (job.attempts_size() > kAttemptsKept) job.mutable_attempts()->DeleteSubrange(0, 1);
  v1::Attempt& attempt = *job.mutable_attempts(job.attempts_size() - 1);
  attempt.set_number(record.attempt_count());
  attempt.set_fence(next_fence_++);
  attempt.set_state(v1::ATTEMPT_STATE_RESERVED);
  attempt.set_membership_epoch(1);
  *attempt.mutable_create_time() = ToProto(now.wall);
  effects->writes.push_back(PutFence{next_fence_});
  effects->writes.push_back(OpenAttempt{job.uid(), attempt.number(), attempt.fence()});

  auto& tasks = *record.mutable_tasks();
  tasks.erase(std::remove_if(tasks.begin(), tasks.end(),
                             [](const TaskRecord& task) { return task.state() == v1::TASK_STATE_EXITED; }),
              tasks.end());
  for (const v1::RankPlace& place : places) {
    *attempt.add_places() = place;
    TaskRecord* task = FindTask(entry, place.worker_id(), attempt.fence());
    if (task == nullptr) {
      task = tasks.Add();
      task->set_attempt(attempt.number());
      task->set_fence(attempt.fence());
      task->set_worker_id(place.worker_id());
      task->set_state(v1::TASK_STATE_ASSIGNED);
    }
    v1::RankStatus& rank = *task->add_ranks();
    rank.set_rank(place.rank());
    rank.set_slot(place.slot());
    rank.set_state(v1::TASK_STATE_ASSIGNED);
    const bool was_free =
        workers_.at(place.worker_id())
            .held
            .emplace(
                place.slot(),
                Holder{.uid = job.uid(), .attempt = attempt.number(), .fence = attempt.fence(), .rank = place.rank()})
            .second;
    TY_CHECK(was_free);  // I1
    effects->writes.push_back(HoldSlot{place.worker_id(), place.slot(), job.uid(), attempt.fence()});
  }
  if (!job.has_start_time()) effects->queue_waits.push_back(now.mono - entry.waiting_since);
  entry.ready_deadline_at = now.mono + timing_.prepare_timeout;
  entry.someone_is_ready = false;
  entry.queue_deadline_at = absl::InfiniteDuration();
  entry.stop_deadline_at = absl::InfiniteDuration();
  SetState(entry, v1::JOB_STATE_ADMITTED, "PLACED", now, effects);
  for (const TaskRecord& task : record.tasks()) {
    if (task.fence() == attempt.fence()) PushAssign(entry, task, effects);
  }
}

void Core::PushTo(const std::string& worker_id, v1::CoordinatorMessage message, Effects* effects) {
  const auto worker = workers_.find(worker_id);
  if (worker == workers_.end() || worker->second.session == 0) return;  // told when it registers again
  effects->pushes.push_back({worker->second.session, std::move(message)});
}

namespace {

void SetRef(const std::string& uid, const TaskRecord& task, v1::AttemptRef* ref) {
  ref->set_job_uid(uid);
  ref->set_attempt(task.attempt());
  ref->set_fence(task.fence());
}

}  // namespace

void Core::PushAssign(const JobEntry& entry, const TaskRecord& task, Effects* effects) {
  v1::CoordinatorMessage message;
  v1::Assign& assign = *message.mutable_assign();
  SetRef(entry.job().uid(), task, assign.mutable_ref());
  *assign.mutable_spec() = entry.job().spec();
  for (const v1::RankStatus& rank : task.ranks()) {
    v1::RankAssignment& assignment = *assign.add_ranks();
    assignment.set_rank(rank.rank());
    assignment.set_slot(rank.slot());
  }
  assign.set_world_size(LiveAttempt(entry)->places_size());
  assign.set_job_dir(absl::StrCat(entry.job().namespace_(), "/", entry.job().uid()));
  *assign.mutable_checkpoints() = entry.record.checkpoints();
  AddArtifacts(entry, &assign);
  *assign.mutable_prepare_timeout() = ToProto(timing_.prepare_timeout);
  *assign.mutable_stop_grace() = ToProto(entry.options.stop_grace);
  assign.set_leader_epoch(leader_epoch_);
  assign.set_follows_failure(entry.record.has_recovery());
  assign.set_reached_step(entry.record.reached_step());
  PushTo(task.worker_id(), std::move(message), effects);
}

void Core::PushStart(const JobEntry& entry, const TaskRecord& task, Effects* effects) {
  const v1::Attempt& attempt = *LiveAttempt(entry);
  v1::CoordinatorMessage message;
  SetRef(entry.job().uid(), task, message.mutable_start()->mutable_ref());
  v1::StartTraining& start = *message.mutable_start()->mutable_start();
  start.set_membership_epoch(attempt.membership_epoch());
  std::map<int, v1::RankAddress> by_rank;
  for (const TaskRecord& peer : entry.record.tasks()) {
    if (peer.fence() != attempt.fence()) continue;
    for (const v1::RankStatus& rank : peer.ranks()) {
      v1::RankAddress& address = by_rank[rank.rank()];
      address.set_rank(rank.rank());
      address.set_host(peer.host_address());
      address.set_comm_address(rank.comm_address());
    }
  }
  for (auto& [rank, address] : by_rank) *start.add_ranks() = std::move(address);
  PushTo(task.worker_id(), std::move(message), effects);
}

v1::StopTask Core::StopMessage(const JobEntry& entry, const TaskRecord& task, Now now) const {
  v1::StopTask stop;
  SetRef(entry.job().uid(), task, stop.mutable_ref());
  stop.set_reason(task.stop_reason() != v1::STOP_REASON_UNSPECIFIED ? task.stop_reason() : v1::STOP_REASON_STALE);
  stop.set_checkpoint(task.stop_checkpoint());
  const absl::Duration used = now.mono - entry.stop_begin;
  *stop.mutable_grace() =
      ToProto(task.stop_checkpoint() ? std::max(entry.options.stop_grace - used, absl::ZeroDuration())
                                     : entry.options.stop_grace);
  return stop;
}

void Core::StopTasks(JobEntry& entry, v1::StopReason reason, bool checkpoint, Now now, Effects* effects) {
  entry.stop_begin = now.mono;
  entry.stop_deadline_at =
      std::min(entry.stop_deadline_at, now.mono + entry.options.stop_grace + timing_.kill_timeout + kStopMargin);
  for (TaskRecord& task : *Touch(entry).record.mutable_tasks()) {
    if (task.state() == v1::TASK_STATE_EXITED || task.state() == v1::TASK_STATE_UNKNOWN) continue;
    // A peer's failure overrules a polite stop: the others would wait for it in a collective (CP-30).
    const bool is_stronger = reason == v1::STOP_REASON_PEER_FAILED && task.stop_checkpoint();
    if (task.stop_reason() != v1::STOP_REASON_UNSPECIFIED && !is_stronger) continue;
    task.set_stop_reason(reason);
    task.set_stop_checkpoint(checkpoint);
    v1::CoordinatorMessage message;
    *message.mutable_stop() = StopMessage(entry, task, now);
    PushTo(task.worker_id(), std::move(message), effects);
  }
}

void Core::BeginStopping(JobEntry& entry, v1::StopReason reason, Now now, Effects* effects) {
  v1::Attempt* attempt = LiveAttempt(entry);
  const bool is_running = attempt != nullptr && attempt->state() == v1::ATTEMPT_STATE_RUNNING;
  SetState(entry, v1::JOB_STATE_STOPPING, ShortName(reason), now, effects);
  entry.job().set_stop_reason(reason);
  entry.record.clear_decision_due();
  if (is_running) coordinator::SetState(*attempt, v1::ATTEMPT_STATE_DRAINING);
  StopTasks(entry, reason, is_running && entry.options.checkpoint.on_stop, now, effects);
  Settle(entry, now, effects);
}

void Core::Report(uint64_t session, const v1::TaskReport& report, Now now, Effects* effects) {
  WorkerEntry* worker = WorkerOf(session);
  if (worker == nullptr) return;
  ApplyReport(*worker, report, now, effects);
  v1::CoordinatorMessage ack;
  *ack.mutable_report_ack()->mutable_ref() = report.ref();
  ack.mutable_report_ack()->set_sequence(report.sequence());
  effects->pushes.push_back({session, std::move(ack)});
  JobEntry* entry = FindEntry(report.ref().job_uid());
  const bool is_ours =
      entry != nullptr && FindTask(*entry, worker->record.worker_id(), report.ref().fence()) != nullptr;
  if (!is_ours && report.state() != v1::TASK_STATE_EXITED) {
    v1::CoordinatorMessage message;
    *message.mutable_stop()->mutable_ref() = report.ref();
    message.mutable_stop()->set_reason(v1::STOP_REASON_STALE);
    effects->pushes.push_back({session, std::move(message)});
  }
  Finish(now, effects);
}

void Core::ApplyReport(WorkerEntry& worker, const v1::TaskReport& report, Now now, Effects* effects) {
  JobEntry* entry = FindEntry(report.ref().job_uid());
  TaskRecord* task = entry == nullptr ? nullptr : FindTask(*entry, worker.record.worker_id(), report.ref().fence());
  if (task == nullptr) {
    if (report.state() == v1::TASK_STATE_EXITED) {
      std::erase_if(worker.held, [&](const auto& held) {
        return held.second.is_foreign && held.second.fence == report.ref().fence();
      });
      schedule_is_due_ = true;
    }
    return;
  }
  const bool was_exited = task->state() == v1::TASK_STATE_EXITED;
  if (!MergeReport(*entry, *task, report, now)) return;
  Touch(*entry);
  if (!was_exited && task->state() == v1::TASK_STATE_EXITED) ReleaseSlots(*entry, *task, effects);
  const v1::Attempt* attempt = LiveAttempt(*entry);
  if (attempt != nullptr && attempt->fence() == task->fence()) AdvanceAttempt(*entry, now, effects);
  Settle(*entry, now, effects);
}

// Takes over what is news; false if nothing is.
bool Core::MergeReport(JobEntry& entry, TaskRecord& task, const v1::TaskReport& report, Now now) {
  bool is_news = !task.acknowledged();
  task.set_acknowledged(true);
  if (!report.host_address().empty() && report.host_address() != task.host_address()) {
    task.set_host_address(report.host_address());
    is_news = true;
  }
  for (const v1::RankStatus& reported : report.ranks()) {
    for (v1::RankStatus& rank : *task.mutable_ranks()) {
      if (rank.rank() != reported.rank() || !CanChange(rank.state(), reported.state())) continue;
      is_news = true;
      rank.set_state(reported.state());
      if (!reported.comm_address().empty()) rank.set_comm_address(reported.comm_address());
      if (reported.restored_step() > 0) rank.set_restored_step(reported.restored_step());
      if (reported.state() != v1::TASK_STATE_EXITED) continue;
      rank.set_succeeded(reported.succeeded());
      *rank.mutable_exit() = reported.exit();
      v1::ExitRecord& exit = *rank.mutable_exit();
      exit.set_rank(rank.rank());
      exit.set_worker_id(task.worker_id());
      if (!exit.has_time()) *exit.mutable_time() = ToProto(now.wall);
      const bool by_us = task.stop_reason() != v1::STOP_REASON_UNSPECIFIED && EndedByOurStop(exit);
      if (rank.succeeded()) {
        exit.clear_failure_class();
      } else {
        exit.set_failure_class(by_us ? v1::FAILURE_CLASS_CONTROL : Classify(exit, entry.options.exit_policy));
      }
      if (exit.reason().empty()) exit.set_reason(rank.succeeded() ? "COMPLETED" : by_us ? "STOPPED" : "RANK_EXITED");
    }
  }
  if (CanChange(task.state(), report.state())) {
    task.set_state(report.state());
    is_news = true;
    if (report.state() == v1::TASK_STATE_EXITED) {
      // A rank that the report forgot has no process either.
      for (v1::RankStatus& rank : *task.mutable_ranks()) {
        if (rank.state() == v1::TASK_STATE_EXITED) continue;
        rank.set_state(v1::TASK_STATE_EXITED);
        rank.mutable_exit()->set_rank(rank.rank());
        rank.mutable_exit()->set_worker_id(task.worker_id());
        rank.mutable_exit()->set_reason("EXITED_UNREPORTED");
        rank.mutable_exit()->set_failure_class(
            task.stop_reason() != v1::STOP_REASON_UNSPECIFIED ? v1::FAILURE_CLASS_CONTROL : v1::FAILURE_CLASS_INFRA);
        *rank.mutable_exit()->mutable_time() = ToProto(now.wall);
      }
    }
  }
  // Rank 0 speaks for the job.
  const bool has_rank_0 = std::any_of(task.ranks().begin(), task.ranks().end(),
                                      [](const v1::RankStatus& rank) { return rank.rank() == 0; });
  if (report.has_result() && has_rank_0 && IsLive(report.ref())) {
    v1::JobResult& result = *entry.job().mutable_result();
    result = report.result();
    if (result.ByteSizeLong() > kMaxResultBytes) {
      const size_t bytes = result.ByteSizeLong();
      result.clear_samples();
      result.clear_documents();
      (*result.mutable_documents())["dropped"] = absl::StrCat("\"samples and documents were not kept: the result has ",
                                                              bytes, " bytes, at most ", kMaxResultBytes, " are\"");
    }
    is_news = true;
  }
  return is_news;
}

void Core::ReleaseSlots(const JobEntry& entry, const TaskRecord& task, Effects* effects) {
  WorkerEntry& worker = workers_.at(task.worker_id());
  for (const v1::RankStatus& rank : task.ranks()) {
    const auto held = worker.held.find(rank.slot());
    if (held == worker.held.end() || held->second.fence != task.fence()) continue;
    worker.held.erase(held);
    effects->writes.push_back(ReleaseSlot{task.worker_id(), rank.slot(), task.fence()});
  }
  schedule_is_due_ = true;
}

void Core::AdvanceAttempt(JobEntry& entry, Now now, Effects* effects) {
  v1::Attempt& attempt = *LiveAttempt(entry);
  bool all_ready = true, all_succeeded = true, someone_ready = false, someone_prepares = false;
  const v1::RankStatus* failed = nullptr;
  for (const TaskRecord& task : entry.record.tasks()) {
    if (task.fence() != attempt.fence()) continue;
    if (task.state() != v1::TASK_STATE_EXITED) all_succeeded = false;
    if (task.state() >= v1::TASK_STATE_PREPARING) someone_prepares = true;
    for (const v1::RankStatus& rank : task.ranks()) {
      const bool is_ready = rank.state() == v1::TASK_STATE_READY || rank.state() == v1::TASK_STATE_RUNNING;
      someone_ready |= is_ready;
      all_ready &= is_ready;
      if (rank.state() != v1::TASK_STATE_EXITED) continue;
      all_succeeded &= rank.succeeded();
      // While stopping, a rank that left as it was told to is no failure.
      const bool is_failure = !rank.succeeded() && !(entry.state() == v1::JOB_STATE_STOPPING &&
                                                     rank.exit().failure_class() == v1::FAILURE_CLASS_CONTROL);
      if (is_failure && failed == nullptr) failed = &rank;
    }
  }
  if (attempt.state() == v1::ATTEMPT_STATE_RESERVED && someone_prepares) {
    coordinator::SetState(attempt, v1::ATTEMPT_STATE_PREPARING);
  }
  if (failed != nullptr) {
    if (entry.state() == v1::JOB_STATE_STOPPING) {
      StopTasks(entry, v1::STOP_REASON_PEER_FAILED, /*checkpoint=*/false, now, effects);
    } else {
      FailAttempt(entry, v1::ATTEMPT_STATE_FAILED, failed->exit(), now, effects);
    }
    return;
  }
  if (entry.state() == v1::JOB_STATE_ADMITTED) {
    if (someone_ready && !entry.someone_is_ready) {
      entry.someone_is_ready = true;
      entry.ready_deadline_at = std::min(entry.ready_deadline_at, now.mono + timing_.barrier_timeout);
    }
    if (all_ready) BeginRunning(entry, attempt, now, effects);
    return;
  }
  if (all_succeeded) Succeed(entry, now, effects);
}

void Core::BeginRunning(JobEntry& entry, v1::Attempt& attempt, Now now, Effects* effects) {
  coordinator::SetState(attempt, v1::ATTEMPT_STATE_READY);
  coordinator::SetState(attempt, v1::ATTEMPT_STATE_RUNNING);
  *attempt.mutable_start_time() = ToProto(now.wall);
  if (!entry.job().has_start_time()) *entry.job().mutable_start_time() = ToProto(now.wall);
  entry.running_since = now.mono;
  entry.ready_deadline_at = absl::InfiniteDuration();
  if (IsIn(entry, RecoveryRecord::PHASE_START)) {
    effects->recovery_times.push_back({RecoveryPhase::kStart, now.mono - entry.recovery_since});
    EnterRecoveryPhase(entry, RecoveryRecord::PHASE_FIRST_STEP, now);
  }
  SetState(entry, v1::JOB_STATE_RUNNING, "ALL_READY", now, effects);
  for (const TaskRecord& task : entry.record.tasks()) {
    if (task.fence() != attempt.fence()) continue;
    for (const v1::RankStatus& rank : task.ranks()) {
      attempt.set_restored_step(std::max(attempt.restored_step(), rank.restored_step()));
    }
    PushStart(entry, task, effects);
  }
}

void Core::EndAttempt(JobEntry& entry, v1::AttemptState state, const v1::ExitRecord& exit, Now now, Effects* effects) {
  v1::Attempt& attempt = *LiveAttempt(Touch(entry));
  if (attempt.has_start_time()) {
    const absl::Duration ran = now.mono - entry.running_since;
    *entry.record.mutable_active_time() = ToProto(FromProto(entry.record.active_time()) + ran);
    if (ran >= timing_.backoff_reset) entry.record.set_backoff_exponent(0);
  }
  coordinator::SetState(attempt, state);
  *attempt.mutable_end_time() = ToProto(now.wall);
  *attempt.mutable_exit() = exit;
  if (!attempt.exit().has_time()) *attempt.mutable_exit()->mutable_time() = ToProto(now.wall);
  if (state != v1::ATTEMPT_STATE_SUCCEEDED) entry.job().clear_result();
  *entry.job().mutable_progress() = entry.progress;
  entry.record.set_reached_step(std::max(entry.record.reached_step(), entry.progress.step()));
  TakeFirstStep(entry, effects);
  entry.ready_deadline_at = absl::InfiniteDuration();
  effects->writes.push_back(CloseAttempt{entry.job().uid(), attempt.number()});
  effects->attempt_ends.push_back({state, exit.failure_class()});
}

void Core::Succeed(JobEntry& entry, Now now, Effects* effects) {
  v1::ExitRecord exit;
  exit.set_reason("COMPLETED");
  exit.set_rank(-1);
  exit.set_exit_code(0);
  *exit.mutable_time() = ToProto(now.wall);
  EndAttempt(entry, v1::ATTEMPT_STATE_SUCCEEDED, exit, now, effects);
  *entry.job().mutable_exit() = exit;
  entry.record.clear_resume_when_stopped();
  SetState(entry, v1::JOB_STATE_SUCCEEDED, "COMPLETED", now, effects);
}

void Core::FailAttempt(JobEntry& entry, v1::AttemptState state, v1::ExitRecord exit, Now now, Effects* effects) {
  if (exit.failure_class() == v1::FAILURE_CLASS_INFRA && !exit.worker_id().empty()) {
    auto& avoided = *entry.record.mutable_avoided_workers();
    if (std::find(avoided.begin(), avoided.end(), exit.worker_id()) == avoided.end()) *avoided.Add() = exit.worker_id();
  }
  EndAttempt(entry, state, exit, now, effects);
  if (entry.state() != v1::JOB_STATE_STOPPING) {
    SetState(entry, v1::JOB_STATE_RECOVERING, exit.reason(), now, effects);
    entry.record.set_decision_due(true);
    BeginRecovery(entry, exit, now);
  }
  StopTasks(entry, v1::STOP_REASON_PEER_FAILED, /*checkpoint=*/false, now, effects);
  Settle(entry, now, effects);
}

void Core::LoseTask(JobEntry& entry, TaskRecord& task, absl::string_view message, Now now, Effects* effects) {
  v1::ExitRecord exit;
  exit.set_failure_class(v1::FAILURE_CLASS_INFRA);
  exit.set_reason("WORKER_LOST");
  exit.set_rank(task.ranks(0).rank());
  exit.set_worker_id(task.worker_id());
  exit.set_message(std::string(message));
  *exit.mutable_time() = ToProto(now.wall);
  FailAttempt(entry, v1::ATTEMPT_STATE_LOST, std::move(exit), now, effects);
}

// Tasks whose end is still worth waiting for. A lost worker cannot answer, and one that does not stop in time holds
// its slots but nothing else.
bool Core::HasUnsettledTasks(const JobEntry& entry, Now now) const {
  if (now.mono >= entry.stop_deadline_at) return false;
  for (const TaskRecord& task : entry.record.tasks()) {
    if (task.state() == v1::TASK_STATE_EXITED || task.state() == v1::TASK_STATE_UNKNOWN) continue;
    const auto worker = workers_.find(task.worker_id());
    if (worker != workers_.end() && worker->second.state != v1::WORKER_STATE_LOST) return true;
  }
  return false;
}

void Core::Settle(JobEntry& entry, Now now, Effects* effects) {
  const bool stopping = entry.state() == v1::JOB_STATE_STOPPING;
  if (!stopping && !entry.record.decision_due()) return;
  if (HasUnsettledTasks(entry, now)) return;
  entry.stop_deadline_at = absl::InfiniteDuration();
  if (stopping) {
    EndStopping(entry, now, effects);
  } else {
    DecideRetry(entry, now, effects);
  }
}

void Core::EndStopping(JobEntry& entry, Now now, Effects* effects) {
  const v1::StopReason reason = entry.job().stop_reason();
  v1::ExitRecord exit;
  exit.set_failure_class(v1::FAILURE_CLASS_CONTROL);
  exit.set_rank(-1);
  *exit.mutable_time() = ToProto(now.wall);
  if (reason == v1::STOP_REASON_CANCEL) {
    exit.set_reason("CANCELLED");
    exit.set_message(entry.record.cancel_message().empty() ? "cancelled by a user" : entry.record.cancel_message());
  } else if (reason == v1::STOP_REASON_DEADLINE) {
    exit.set_failure_class(v1::FAILURE_CLASS_USER);
    exit.set_reason("ACTIVE_DEADLINE");
    exit.set_message(absl::StrCat("ran longer than its active_deadline of ", Text(entry.options.active_deadline)));
  } else {
    exit.set_reason(ShortName(reason));
  }
  if (LiveAttempt(entry) != nullptr) EndAttempt(entry, v1::ATTEMPT_STATE_STOPPED, exit, now, effects);
  switch (reason) {
    case v1::STOP_REASON_CANCEL:
      *entry.job().mutable_exit() = exit;
      SetState(entry, v1::JOB_STATE_CANCELLED, "CANCEL", now, effects);
      return;
    case v1::STOP_REASON_DEADLINE:
      *entry.job().mutable_exit() = exit;
      SetState(entry, v1::JOB_STATE_FAILED, "ACTIVE_DEADLINE", now, effects);
      return;
    case v1::STOP_REASON_SUSPEND: {
      const bool resume = entry.record.resume_when_stopped();
      entry.record.clear_resume_when_stopped();
      SetState(entry, v1::JOB_STATE_SUSPENDED, "SUSPEND", now, effects);
      if (resume) TY_CHECK_OK(ResumeEntry(entry, now, effects));
      return;
    }
    default:  // PREEMPT, RESIZE, DRAIN: back to its place in the queue, which its submit time keeps
      SetState(entry, v1::JOB_STATE_QUEUED, ShortName(reason), now, effects);
  }
}

void Core::DecideRetry(JobEntry& entry, Now now, Effects* effects) {
  JobRecord& record = Touch(entry).record;
  record.clear_decision_due();
  v1::Attempt& attempt = *entry.job().mutable_attempts(entry.job().attempts_size() - 1);
  std::vector<v1::ExitRecord> exits = {attempt.exit()};
  for (const TaskRecord& task : record.tasks()) {
    if (task.fence() != attempt.fence()) continue;
    for (const v1::RankStatus& rank : task.ranks()) {
      const bool has_failed = rank.state() == v1::TASK_STATE_EXITED && !rank.succeeded() &&
                              rank.exit().failure_class() != v1::FAILURE_CLASS_CONTROL;
      if (has_failed) exits.push_back(rank.exit());
    }
  }
  const v1::ExitRecord root = RootCause(exits);
  *attempt.mutable_exit() = root;

  const auto fail = [&](v1::ExitRecord exit) {
    *entry.job().mutable_exit() = exit;
    SetState(entry, v1::JOB_STATE_FAILED, exit.reason(), now, effects);
  };
  const spec::RetryOptions& retry = entry.options.retry;
  const v1::FailureClass failure_class = root.failure_class();
  if (failure_class == v1::FAILURE_CLASS_PERMANENT) return fail(root);
  if (failure_class == v1::FAILURE_CLASS_USER) {
    record.set_user_failures(record.user_failures() + 1);
    if (record.user_failures() > retry.max_user_failures) return fail(root);
  }
  if (failure_class == v1::FAILURE_CLASS_INFRA) {
    record.set_infra_failures(record.infra_failures() + 1);
    if (retry.max_infra_failures && record.infra_failures() > *retry.max_infra_failures) return fail(root);
  }
  if (failure_class != v1::FAILURE_CLASS_CONTROL) {
    const bool has_progress = entry.job().committed_step() > record.attempt_first_step();
    record.set_attempts_without_progress(has_progress ? 0 : record.attempts_without_progress() + 1);
    if (retry.no_progress_limit > 0 && record.attempts_without_progress() >= retry.no_progress_limit) {
      v1::ExitRecord exit = root;
      exit.set_reason("NO_PROGRESS");
      exit.set_message(absl::StrCat(record.attempts_without_progress(),
                                    " attempts in a row ended without a new committed checkpoint; the last: ",
                                    root.reason(), ": ", root.message()));
      return fail(std::move(exit));
    }
  }
  const absl::Duration wait =
      timing_.backoff_scale * Backoff({.initial = retry.backoff_initial, .maximum = retry.backoff_maximum},
                                      record.backoff_exponent(), HashOf(entry.job().uid()));
  if (failure_class != v1::FAILURE_CLASS_CONTROL) record.set_backoff_exponent(record.backoff_exponent() + 1);
  if (IsIn(entry, RecoveryRecord::PHASE_STOP)) {
    effects->recovery_times.push_back({RecoveryPhase::kDetect, FromProto(record.recovery().detect())});
    effects->recovery_times.push_back({RecoveryPhase::kStop, now.mono - entry.recovery_since});
    EnterRecoveryPhase(entry, RecoveryRecord::PHASE_PLACE, now);
  }
  entry.retry_at = now.mono + wait;
  *record.mutable_retry_time() = ToProto(now.wall + wait);
  schedule_is_due_ = true;
}

void Core::CommitCheckpoint(uint64_t session, const v1::CommitCheckpoint& message, Now now, Effects* effects) {
  const WorkerEntry* worker = WorkerOf(session);
  if (worker == nullptr) return;
  const v1::CheckpointManifest& manifest = message.manifest();
  v1::CoordinatorMessage reply;
  v1::CheckpointAck& ack = *reply.mutable_checkpoint_ack();
  *ack.mutable_ref() = message.ref();
  ack.set_step(manifest.step());

  JobEntry* entry = FindEntry(message.ref().job_uid());
  const auto refuse = [&](absl::StatusCode code, std::string text) {
    ack.set_code(static_cast<int>(code));
    ack.set_message(std::move(text));
  };
  if (!IsLive(message.ref()) || FindTask(*entry, worker->record.worker_id(), message.ref().fence()) == nullptr) {
    refuse(absl::StatusCode::kFailedPrecondition, absl::StrCat("STALE_FENCE: attempt ", message.ref().attempt(),
                                                               " with fence ", message.ref().fence(), " is not live"));
  } else if (manifest.step() <= 0 || manifest.directory().empty()) {
    refuse(absl::StatusCode::kInvalidArgument,
           absl::StrCat("manifest: step ", manifest.step(), " must be positive and directory not empty"));
  } else if (entry->record.checkpoints_size() > 0 && entry->record.checkpoints(0).step() == manifest.step() &&
             entry->record.checkpoints(0).directory() == manifest.directory()) {
    // Repeated after a lost answer: committed already.
  } else if (manifest.step() <= entry->job().committed_step()) {
    refuse(absl::StatusCode::kFailedPrecondition,
           absl::StrCat("STALE_STEP: step ", manifest.step(), " is not after the committed step ",
                        entry->job().committed_step()));
  } else {
    Touch(*entry).job().set_committed_step(manifest.step());
    auto& kept = *entry->record.mutable_checkpoints();
    *kept.Add() = manifest;
    std::rotate(kept.begin(), kept.end() - 1, kept.end());
    while (kept.size() > entry->options.checkpoint.keep_last) kept.RemoveLast();
  }
  effects->pushes.push_back({session, std::move(reply)});
  Finish(now, effects);
}

void Core::Progress(uint64_t session, const v1::ProgressReport& report, Now now, Effects* effects) {
  const WorkerEntry* worker = WorkerOf(session);
  if (worker == nullptr || !IsLive(report.ref())) return;
  JobEntry& entry = *FindEntry(report.ref().job_uid());
  if (report.has_progress()) {
    entry.progress = report.progress();
    if (!entry.progress.has_time()) *entry.progress.mutable_time() = ToProto(now.wall);
    v1::ProgressEvent event;
    event.set_job_uid(report.ref().job_uid());
    *event.mutable_progress() = entry.progress;
    effects->progress.push_back(std::move(event));
    NoteFirstStep(entry, now);
  }
  for (const v1::MetricSample& sample : report.samples()) {
    PutMetric put{.uid = report.ref().job_uid(), .point = {}};
    put.point.set_step(sample.step());
    put.point.set_attempt(report.ref().attempt());
    *put.point.mutable_values() = sample.values();
    *put.point.mutable_time() = sample.has_time() ? sample.time() : ToProto(now.wall);
    effects->writes.push_back(std::move(put));
  }
}

}  // namespace trainyard::coordinator
