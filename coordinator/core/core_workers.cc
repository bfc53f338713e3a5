// Worker sessions, leases, and the reconcile table of control-plane.md, section 4.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/core/core.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "proto/rpc/error_details.h"

namespace trainyard::coordinator {
namespace {

constexpr size_t kMaxWorkerId = 253;
// Heartbeats a second that all workers together may send; above, the interval stretches (CP-22).
constexpr double kHeartbeatRate = 200.0;

}  // namespace

absl::Status Core::AdmitWorker(const v1::Register& message) const {
  const std::string& id = message.worker_id();
  if (id.empty() || id.size() > kMaxWorkerId) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker_id: ", id.size(), " characters, must have 1 to ", kMaxWorkerId));
  }
  std::set<int> slots;
  for (const v1::WorkerSlot& slot : message.slots()) {
    if (slot.index() < 0 || !slots.insert(slot.index()).second) {
      return absl::InvalidArgumentError(absl::StrCat("slots: index ", slot.index(), " is negative or given twice"));
    }
    if (slot.type() == v1::SLOT_TYPE_UNSPECIFIED) {
      return absl::InvalidArgumentError(absl::StrCat("slots: slot ", slot.index(), " has no type"));
    }
  }
  uint64_t max_fence = message.max_fence();
  for (const v1::TaskReport& task : message.tasks()) max_fence = std::max(max_fence, task.ref().fence());
  if (max_fence >= next_fence_ || message.max_leader_epoch() > leader_epoch_) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "STORE_ROLLBACK",
        absl::StrCat("StoreRollback: worker ", id, " has seen fence ", max_fence, " and leader epoch ",
                     message.max_leader_epoch(), ", but the store is at fence ", next_fence_ - 1, " and leader epoch ",
                     leader_epoch_, ": it was restored from an older copy; see docs/operations.md"),
        {{"worker", id}, {"worker_fence", absl::StrCat(max_fence)}, {"store_fence", absl::StrCat(next_fence_ - 1)}});
  }
  const auto known = workers_.find(id);
  if (known == workers_.end()) return absl::OkStatus();
  const WorkerRecord& record = known->second.record;
  const bool is_older = message.start_count() < record.start_count();
  const bool is_twin = message.start_count() == record.start_count() && message.incarnation() != record.incarnation() &&
                       known->second.session != 0;
  if (is_older || is_twin) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "SUPERSEDED",
        absl::StrCat("worker ", id, ": a newer daemon (start ", record.start_count(),
                     ") has registered; this one (start ", message.start_count(), ") must stop its tasks"),
        {{"worker", id}});
  }
  return absl::OkStatus();
}

absl::Status Core::Register(uint64_t session, const v1::Register& message, Now now, Effects* effects) {
  if (const absl::Status status = AdmitWorker(message); !status.ok()) {
    if (GetErrorReason(status) == "STORE_ROLLBACK") {
      WorkerEntry& worker = workers_[message.worker_id()];
      if (worker.session != 0) sessions_.erase(worker.session);
      worker.session = 0;
      worker.record.set_worker_id(message.worker_id());
      worker.record.set_host(message.host());
      worker.state = v1::WORKER_STATE_REFUSED;
    }
    return status;
  }
  WorkerEntry& worker = workers_[message.worker_id()];
  const bool same_incarnation = worker.record.incarnation() == message.incarnation();
  if (worker.session != 0 && worker.session != session) {
    effects->closes.push_back(
        {worker.session, ErrorWithReason(absl::StatusCode::kFailedPrecondition, "SUPERSEDED",
                                         absl::StrCat("worker ", message.worker_id(), " has opened a newer session"))});
    sessions_.erase(worker.session);
  }
  WorkerRecord& record = worker.record;
  record.set_worker_id(message.worker_id());
  record.set_incarnation(message.incarnation());
  record.set_start_count(message.start_count());
  record.set_host(message.host());
  record.set_address(message.address());
  *record.mutable_slots() = message.slots();
  *record.mutable_labels() = message.labels();
  record.set_version(message.version());
  *record.mutable_register_time() = ToProto(now.wall);
  record.set_lost(false);
  effects->writes.push_back(PutWorker{record});

  const double stretch = std::max(
      1.0, static_cast<double>(workers_.size()) / kHeartbeatRate / absl::ToDoubleSeconds(timing_.heartbeat_interval));
  worker.session = session;
  worker.state = v1::WORKER_STATE_READY;
  worker.lease_ttl = timing_.lease_ttl * stretch;
  worker.lease_ends_at = now.mono + worker.lease_ttl;
  worker.last_heartbeat = now.wall;
  worker.last_sign = now.mono;
  sessions_[session] = message.worker_id();
  schedule_is_due_ = true;

  v1::CoordinatorMessage reply;
  v1::Registered& registered = *reply.mutable_registered();
  registered.set_leader_epoch(leader_epoch_);
  *registered.mutable_heartbeat_interval() = ToProto(timing_.heartbeat_interval * stretch);
  *registered.mutable_lease_ttl() = ToProto(worker.lease_ttl);
  *registered.mutable_self_fence_after() = ToProto(timing_.self_fence_after);
  std::erase_if(worker.held, [](const auto& held) { return held.second.is_foreign; });
  for (const v1::TaskReport& task : message.tasks()) *registered.add_decisions() = Decide(worker, task, now);
  effects->pushes.push_back({session, std::move(reply)});
  Reconcile(worker, same_incarnation, message, now, effects);
  Finish(now, effects);
  return absl::OkStatus();
}

// One row of the reconcile table.
v1::TaskDecision Core::Decide(WorkerEntry& worker, const v1::TaskReport& report, Now now) {
  v1::TaskDecision decision;
  *decision.mutable_ref() = report.ref();
  JobEntry* entry = FindEntry(report.ref().job_uid());
  TaskRecord* task = entry == nullptr ? nullptr : FindTask(*entry, worker.record.worker_id(), report.ref().fence());
  const bool has_exited = report.state() == v1::TASK_STATE_EXITED;
  if (task != nullptr && (IsLive(report.ref()) || has_exited)) {
    decision.set_keep(task->stop_reason() == v1::STOP_REASON_UNSPECIFIED && !has_exited);
    if (!decision.keep() && !has_exited) *decision.mutable_stop() = StopMessage(*entry, *task, now);
    return decision;
  }
  decision.set_keep(false);
  decision.set_quarantine(entry == nullptr);
  if (has_exited) return decision;
  *decision.mutable_stop()->mutable_ref() = report.ref();
  decision.mutable_stop()->set_reason(v1::STOP_REASON_STALE);
  if (task != nullptr) return decision;
  // Its processes use the slots although no record of ours says so.
  for (const v1::RankStatus& rank : report.ranks()) {
    worker.held.emplace(rank.slot(), Holder{.uid = report.ref().job_uid(),
                                            .attempt = report.ref().attempt(),
                                            .fence = report.ref().fence(),
                                            .rank = rank.rank(),
                                            .is_foreign = true});
  }
  return decision;
}

void Core::Reconcile(WorkerEntry& worker, bool same_incarnation, const v1::Register& message, Now now,
                     Effects* effects) {
  std::set<uint64_t> reported;
  for (const v1::TaskReport& task : message.tasks()) reported.insert(task.ref().fence());

  // (fence, job) that we believe to be there. By fence, since a worker refuses one that is smaller than any it has
  // seen.
  std::set<std::pair<uint64_t, std::string>> missing;
  for (const auto& [slot, holder] : worker.held) {
    if (!holder.is_foreign && !reported.contains(holder.fence)) missing.insert({holder.fence, holder.uid});
  }
  for (const auto& [fence, uid] : missing) {
    JobEntry& entry = *FindEntry(uid);
    TaskRecord* task = FindTask(entry, worker.record.worker_id(), fence);
    TY_CHECK(task != nullptr);
    const v1::Attempt* attempt = LiveAttempt(entry);
    const bool is_live = attempt != nullptr && attempt->fence() == fence;
    if (is_live && !task->acknowledged() && task->stop_reason() == v1::STOP_REASON_UNSPECIFIED) {
      PushAssign(entry, *task, effects);  // the first one was lost on the way
      continue;
    }
    // A daemon persists its tasks, so the same one cannot forget a task that it has acknowledged.
    if (same_incarnation && task->acknowledged()) ++effects->invariant_violations;
    v1::TaskReport lost;
    lost.mutable_ref()->set_job_uid(uid);
    lost.mutable_ref()->set_attempt(task->attempt());
    lost.mutable_ref()->set_fence(fence);
    lost.set_state(v1::TASK_STATE_EXITED);
    for (const v1::RankStatus& rank : task->ranks()) {
      v1::RankStatus& status = *lost.add_ranks();
      status.set_rank(rank.rank());
      status.set_slot(rank.slot());
      status.set_state(v1::TASK_STATE_EXITED);
      status.mutable_exit()->set_failure_class(
          task->stop_reason() == v1::STOP_REASON_UNSPECIFIED ? v1::FAILURE_CLASS_INFRA : v1::FAILURE_CLASS_CONTROL);
      status.mutable_exit()->set_reason("LOST_BY_WORKER");
      status.mutable_exit()->set_message(
          absl::StrCat("worker ", worker.record.worker_id(), " does not know the task any more"));
    }
    ApplyReport(worker, lost, now, effects);
  }

  for (const v1::TaskReport& report : message.tasks()) {
    ApplyReport(worker, report, now, effects);
    v1::CoordinatorMessage ack;
    *ack.mutable_report_ack()->mutable_ref() = report.ref();
    ack.mutable_report_ack()->set_sequence(report.sequence());
    effects->pushes.push_back({worker.session, std::move(ack)});
    // RUNNING was committed, but StartTask may have been lost on the way.
    JobEntry* entry = FindEntry(report.ref().job_uid());
    if (entry == nullptr || entry->state() != v1::JOB_STATE_RUNNING || !IsLive(report.ref())) continue;
    const TaskRecord* task = FindTask(*entry, worker.record.worker_id(), report.ref().fence());
    if (task != nullptr && report.state() == v1::TASK_STATE_READY) PushStart(*entry, *task, effects);
  }
}

void Core::Disconnect(uint64_t session) {
  WorkerEntry* worker = WorkerOf(session);
  if (worker == nullptr) return;
  sessions_.erase(session);
  worker->session = 0;
  if (worker->state == v1::WORKER_STATE_READY) worker->state = v1::WORKER_STATE_DISCONNECTED;
}

bool Core::Heartbeat(uint64_t session, Now received) {
  WorkerEntry* worker = WorkerOf(session);
  if (worker == nullptr) return false;
  worker->lease_ends_at = std::max(worker->lease_ends_at, received.mono + worker->lease_ttl);
  worker->last_heartbeat = received.wall;
  worker->last_sign = std::max(worker->last_sign, received.mono);
  return true;
}

void Core::ExpireLeases(Now now, Effects* effects) {
  for (auto& [id, worker] : workers_) {
    const bool may_expire = worker.state == v1::WORKER_STATE_READY || worker.state == v1::WORKER_STATE_DISCONNECTED;
    if (may_expire && now.mono >= worker.lease_ends_at) {
      worker.state = v1::WORKER_STATE_LOST;
      worker.record.set_lost(true);
      effects->writes.push_back(PutWorker{worker.record});
      ++effects->lease_expirations;
      if (worker.session != 0) {
        effects->closes.push_back(
            {worker.session, absl::AbortedError(absl::StrCat("no heartbeat of worker ", id, " for ",
                                                             Text(worker.lease_ttl), ": register again"))});
        sessions_.erase(worker.session);
        worker.session = 0;
      }
    }
    if (worker.state != v1::WORKER_STATE_LOST) continue;
    // A job may have more patience than the lease (lost_after), so this looks again at every tick.
    std::set<std::pair<std::string, uint64_t>> held;
    for (const auto& [slot, holder] : worker.held) held.insert({holder.uid, holder.fence});
    for (const auto& [uid, fence] : held) {
      JobEntry* entry = FindEntry(uid);
      const v1::Attempt* attempt = entry == nullptr ? nullptr : LiveAttempt(*entry);
      if (attempt == nullptr || attempt->fence() != fence) continue;
      if (now.mono < worker.lease_ends_at + entry->options.lost_after) continue;
      TaskRecord* task = FindTask(*entry, id, fence);
      LoseTask(*entry, *task,
               absl::StrCat("worker ", id, " has sent nothing since its lease of ", Text(worker.lease_ttl), " ended"),
               now, effects);
    }
  }
}

void Core::SetSlotHealth(uint64_t session, const v1::SlotHealth& message, Now now, Effects* effects) {
  WorkerEntry* worker = WorkerOf(session);
  if (worker == nullptr) return;
  bool changed = false;
  for (const v1::WorkerSlot& reported : message.slots()) {
    for (v1::WorkerSlot& slot : *worker->record.mutable_slots()) {
      const bool is_same = slot.healthy() == reported.healthy() && slot.health_message() == reported.health_message();
      if (slot.index() != reported.index() || is_same) continue;
      slot.set_healthy(reported.healthy());
      slot.set_health_message(reported.health_message());
      changed = true;
    }
  }
  if (!changed) return;
  effects->writes.push_back(PutWorker{worker->record});
  schedule_is_due_ = true;
}

// Its processes cannot be asked any more, so this is the one way by which a slot is given up without its worker's word
// (control-plane.md, section 3). The task records go, they do not become EXITED: should the worker come back with them
// after all, Decide finds nobody who knows them, so it must stop them, and their slots count as taken until it has.
absl::Status Core::ForgetWorker(const std::string& worker_id, Now now, Effects* effects) {
  const auto found = workers_.find(worker_id);
  if (found == workers_.end()) {
    return ErrorWithReason(absl::StatusCode::kNotFound, "WORKER_NOT_FOUND",
                           absl::StrCat("there is no worker ", worker_id), {{"worker", worker_id}});
  }
  const WorkerEntry& worker = found->second;
  if (worker.state != v1::WORKER_STATE_LOST && worker.state != v1::WORKER_STATE_REFUSED) {
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "WORKER_NOT_LOST",
        absl::StrCat(
            "worker ", worker_id, " is ", ShortName(worker.state),
            "; only one that is LOST or REFUSED can be forgotten: end its daemon and wait for its lease to end"),
        {{"worker", worker_id}, {"state", ShortName(worker.state)}});
  }
  for (const std::string& uid : occupying_) {
    JobEntry& entry = *FindEntry(uid);
    const v1::Attempt* attempt = LiveAttempt(entry);
    if (attempt == nullptr || FindTask(entry, worker_id, attempt->fence()) == nullptr) continue;
    return ErrorWithReason(
        absl::StatusCode::kFailedPrecondition, "WORKER_IN_USE",
        absl::StrCat("attempt ", attempt->number(), " of job ", entry.job().name(), " (", uid,
                     ") still counts on worker ", worker_id, ": cancel it, or wait until it is LOST"),
        {{"worker", worker_id}, {"job", uid}});
  }
  std::set<std::string> uids;
  for (const auto& [slot, holder] : worker.held) {
    if (holder.is_foreign) continue;
    uids.insert(holder.uid);
    effects->writes.push_back(ReleaseSlot{worker_id, slot, holder.fence});
  }
  for (const std::string& uid : uids) {
    auto& tasks = *Touch(*FindEntry(uid)).record.mutable_tasks();
    tasks.erase(std::remove_if(tasks.begin(), tasks.end(),
                               [&](const TaskRecord& task) {
                                 return task.worker_id() == worker_id && task.state() != v1::TASK_STATE_EXITED;
                               }),
                tasks.end());
  }
  effects->writes.push_back(DeleteWorker{worker_id});
  workers_.erase(found);
  schedule_is_due_ = true;
  Finish(now, effects);
  return absl::OkStatus();
}

v1::SlotState Core::StateOf(const WorkerEntry& worker, const v1::WorkerSlot& slot) const {
  if (worker.state != v1::WORKER_STATE_READY && worker.state != v1::WORKER_STATE_DISCONNECTED) {
    return v1::SLOT_STATE_UNREACHABLE;
  }
  if (!slot.healthy()) return v1::SLOT_STATE_UNHEALTHY;
  const auto held = worker.held.find(slot.index());
  if (held == worker.held.end()) {
    return worker.session == 0 ? v1::SLOT_STATE_UNREACHABLE : v1::SLOT_STATE_FREE;
  }
  const JobEntry* entry = FindEntry(held->second.uid);
  if (entry != nullptr) {
    for (const TaskRecord& task : entry->record.tasks()) {
      if (task.fence() != held->second.fence || task.worker_id() != worker.record.worker_id()) continue;
      if (task.state() == v1::TASK_STATE_UNKNOWN) return v1::SLOT_STATE_UNHEALTHY;
      if (task.state() == v1::TASK_STATE_ASSIGNED) return v1::SLOT_STATE_RESERVED;
    }
  }
  return v1::SLOT_STATE_BUSY;
}

v1::ListWorkersResponse Core::Workers() const {
  v1::ListWorkersResponse response;
  for (const auto& [id, worker] : workers_) {
    v1::WorkerInfo& info = *response.add_workers();
    info.set_worker_id(id);
    info.set_host(worker.record.host());
    info.set_state(worker.state);
    *info.mutable_labels() = worker.record.labels();
    info.set_version(worker.record.version());
    info.set_address(worker.record.address());
    *info.mutable_register_time() = worker.record.register_time();
    if (worker.last_heartbeat > absl::InfinitePast()) {
      *info.mutable_last_heartbeat_time() = ToProto(worker.last_heartbeat);
    }
    for (const v1::WorkerSlot& slot : worker.record.slots()) {
      v1::SlotInfo& slot_info = *info.add_slots();
      slot_info.set_index(slot.index());
      slot_info.set_type(slot.type());
      slot_info.set_state(StateOf(worker, slot));
      if (!slot.healthy()) slot_info.set_health_message(slot.health_message());
      if (slot.has_gpu()) *slot_info.mutable_gpu() = slot.gpu();
      const auto held = worker.held.find(slot.index());
      if (held == worker.held.end()) continue;
      slot_info.set_job_uid(held->second.uid);
      slot_info.set_rank(held->second.rank);
      const JobEntry* entry = FindEntry(held->second.uid);
      if (entry != nullptr) slot_info.set_job_name(entry->job().name());
    }
  }
  return response;
}

bool Core::MayLog(uint64_t session, const v1::AttemptRef& ref) const {
  const auto it = sessions_.find(session);
  if (it == sessions_.end()) return false;
  const JobEntry* entry = FindEntry(ref.job_uid());
  if (entry == nullptr) return false;
  for (const v1::Attempt& attempt : entry->job().attempts()) {
    if (attempt.fence() != ref.fence() || attempt.number() != ref.attempt()) continue;
    for (const v1::RankPlace& place : attempt.places()) {
      if (place.worker_id() == it->second) return true;
    }
  }
  return false;
}

}  // namespace trainyard::coordinator
