#include "coordinator/core/core.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"

namespace trainyard::coordinator {
namespace {

bool Waits(v1::JobState state) {
  return state == v1::JOB_STATE_QUEUED || state == v1::JOB_STATE_RECOVERING;
}

bool Occupies(v1::JobState state) {
  return state == v1::JOB_STATE_ADMITTED || state == v1::JOB_STATE_RUNNING || state == v1::JOB_STATE_STOPPING;
}

// What is left of `total` that began at `begin`. The wall clock is all that survives a restart, and it may have jumped:
// so never more than the whole.
absl::Duration Remaining(const google::protobuf::Timestamp& begin, absl::Duration total, absl::Time now) {
  return std::clamp(FromProto(begin) + total - now, absl::ZeroDuration(), total);
}

}  // namespace

std::string Text(absl::Duration duration) {
  return absl::FormatDuration(absl::Trunc(duration, absl::Milliseconds(1)));
}

Core::Core(const Timing& timing, Records records, Now now)
    : timing_(timing),
      grace_ends_at_(now.mono + timing.failover_grace),
      last_tick_(now.mono),
      next_retention_check_(now.mono) {
  Load(std::move(records), now);
}

void Core::Load(Records records, Now now) {
  leader_epoch_ = records.leader_epoch;
  next_fence_ = records.next_fence;
  revision_ = records.revision;
  for (WorkerRecord& record : records.workers) {
    WorkerEntry& worker = workers_[record.worker_id()];
    worker.state = record.lost() ? v1::WORKER_STATE_LOST : v1::WORKER_STATE_DISCONNECTED;
    worker.lease_ttl = timing_.lease_ttl;
    worker.lease_ends_at = record.lost() ? now.mono : grace_ends_at_;  // CP-24
    worker.last_sign = now.mono;
    worker.record = std::move(record);
  }
  for (RequestRecord& record : records.requests) {
    auto key = std::make_tuple(record.namespace_(), record.request_id(), record.method());
    requests_.emplace(std::move(key), std::move(record));
  }
  for (GenerationRecord& record : records.generations) {
    Generation& generation = families_[record.parent_uid()][record.number()];
    generation.trials.resize(record.count());
    generation.record = std::move(record);
  }
  for (JobRecord& record : records.jobs) {
    auto entry = std::make_unique<JobEntry>();
    entry->record = std::move(record);
    const v1::Job& job = entry->job();
    // It was valid when it was accepted; if this release's rules differ, defaults keep the job manageable.
    auto options = spec::ParseJob(job.spec());
    if (options.ok()) SetOptions(*entry, *std::move(options));
    entry->options.priority = job.priority();
    if (!job.parent_uid().empty()) {
      entry->generation = &families_.at(job.parent_uid()).at(job.generation());
      entry->generation->trials.at(job.trial_index()) = job.uid();
    }

    entry->waiting_since = now.mono;
    if (entry->state() == v1::JOB_STATE_QUEUED && entry->record.attempt_count() == 0 && !WaitsForOthers(*entry) &&
        entry->options.queue_deadline < absl::InfiniteDuration()) {
      entry->queue_deadline_at =
          now.mono + Remaining(entry->record.queue_time(), entry->options.queue_deadline, now.wall);
    }
    if (entry->record.has_retry_time()) {
      const absl::Duration longest = entry->options.retry.backoff_maximum * 1.2;
      entry->retry_at =
          now.mono + std::clamp(FromProto(entry->record.retry_time()) - now.wall, absl::ZeroDuration(), longest);
    }
    if (entry->state() == v1::JOB_STATE_ADMITTED) entry->ready_deadline_at = now.mono + timing_.prepare_timeout;
    if (entry->state() == v1::JOB_STATE_STOPPING || entry->record.decision_due()) {
      entry->stop_begin = now.mono;
      entry->stop_deadline_at =
          now.mono + std::max(timing_.failover_grace, entry->options.stop_grace + timing_.kill_timeout);
    }
    if (entry->state() == v1::JOB_STATE_RUNNING) {
      entry->running_since = now.mono;
      const v1::Attempt* attempt = LiveAttempt(*entry);
      if (attempt != nullptr && attempt->has_start_time()) {
        entry->running_since -= std::max(now.wall - FromProto(attempt->start_time()), absl::ZeroDuration());
      }
    }
    entry->recovery_since =
        now.mono - std::max(now.wall - FromProto(entry->record.recovery().phase_begin()), absl::ZeroDuration());
    entry->progress = job.progress();
    for (const TaskRecord& task : entry->record.tasks()) {
      if (task.state() == v1::TASK_STATE_EXITED) continue;
      WorkerEntry& worker = workers_[task.worker_id()];
      for (const v1::RankStatus& rank : task.ranks()) {
        const bool is_new =
            worker.held
                .emplace(
                    rank.slot(),
                    Holder{.uid = job.uid(), .attempt = task.attempt(), .fence = task.fence(), .rank = rank.rank()})
                .second;
        TY_CHECK(is_new);  // I1; the store's unique index holds the same
      }
    }
    by_time_.emplace(FromProto(job.submit_time()), job.uid());
    const std::string uid = job.uid();
    IndexJob(*entry);
    jobs_.emplace(uid, std::move(entry));
  }
  for (const auto& [time, uid] : by_time_) {
    const v1::Job& job = FindEntry(uid)->job();
    newest_by_name_[{job.namespace_(), job.name()}] = uid;
  }
  for (const auto& [uid, entry] : jobs_) {
    if (entry->generation != nullptr) entry->parent = FindEntry(entry->job().parent_uid());
    WatchDependencies(*entry);
  }
  for (const auto& [uid, family] : families_) {
    TY_CHECK(FindEntry(uid) != nullptr);
    for (const auto& [number, generation] : family) {
      for (const std::string& trial : generation.trials) TY_CHECK(!trial.empty());  // I23
    }
  }
}

void Core::SetOptions(JobEntry& entry, spec::JobOptions options) {
  entry.gang = spec::GangOf(options);
  entry.options = std::move(options);
}

void Core::AdoptVolatile(const Core& old) {
  grace_ends_at_ = old.grace_ends_at_;
  last_tick_ = old.last_tick_;
  for (const auto& [id, was] : old.workers_) {
    const auto found = workers_.find(id);
    const bool is_known = found != workers_.end() && found->second.record.incarnation() == was.record.incarnation() &&
                          found->second.record.start_count() == was.record.start_count();
    if (!is_known) continue;
    WorkerEntry& worker = found->second;
    worker.session = was.session;
    worker.lease_ttl = was.lease_ttl;
    worker.lease_ends_at = was.lease_ends_at;
    worker.last_heartbeat = was.last_heartbeat;
    worker.last_sign = was.last_sign;
    // A loss that was not stored has not happened; the next Tick finds it again.
    if (!worker.record.lost()) {
      worker.state = was.session != 0 ? v1::WORKER_STATE_READY : v1::WORKER_STATE_DISCONNECTED;
    }
    if (was.session != 0) sessions_[was.session] = id;
    for (const auto& [slot, holder] : was.held) {
      if (holder.is_foreign) worker.held.emplace(slot, holder);
    }
  }
  for (auto& [uid, entry] : jobs_) {
    const JobEntry* was = old.FindEntry(uid);
    if (was == nullptr) continue;
    entry->progress = was->progress;
    if (IsIn(*entry, RecoveryRecord::PHASE_FIRST_STEP) && was->first_step_at) {
      entry->recovery_since = was->recovery_since;
      entry->first_step_at = was->first_step_at;
      first_steps_.insert(uid);
    }
  }
  // What a session was told in commits that succeeded it need not be told again.
  for (auto& [uid, family] : families_) {
    const auto old_family = old.families_.find(uid);
    if (old_family == old.families_.end()) continue;
    for (auto& [number, generation] : family) {
      const auto was = old_family->second.find(number);
      if (was == old_family->second.end()) continue;
      generation.session = was->second.session;
      generation.fence = was->second.fence;
    }
  }
}

Core::QueueKey Core::KeyOf(const JobEntry& entry) const {
  return {-entry.job().priority(), FromProto(entry.job().submit_time()), entry.job().uid()};
}

void Core::IndexJob(const JobEntry& entry) {
  if (Waits(entry.state())) {
    waiting_.insert(KeyOf(entry));
    waiting_by_queue_[entry.job().queue()].insert(KeyOf(entry));
  }
  if (Occupies(entry.state())) occupying_.insert(entry.job().uid());
  CountTrial(entry, 1);
}

void Core::UnindexJob(const JobEntry& entry) {
  waiting_.erase(KeyOf(entry));
  waiting_by_queue_[entry.job().queue()].erase(KeyOf(entry));
  occupying_.erase(entry.job().uid());
  CountTrial(entry, -1);
}

Core::JobEntry& Core::Touch(JobEntry& entry) {
  if (!entry.is_touched) changed_.push_back(entry.job().uid());
  entry.is_touched = true;
  return entry;
}

void Core::SetState(JobEntry& entry, v1::JobState to, absl::string_view reason, Now now, Effects* effects) {
  const v1::JobState from = entry.state();
  TY_CHECK(CanChange(from, to));
  UnindexJob(entry);
  Touch(entry).job().set_state(to);
  if (to != v1::JOB_STATE_STOPPING) entry.job().clear_stop_reason();
  const bool may_recover =
      to == v1::JOB_STATE_RECOVERING || to == v1::JOB_STATE_ADMITTED || to == v1::JOB_STATE_RUNNING;
  if (!may_recover) entry.record.clear_recovery();
  if (Waits(to)) entry.waiting_since = now.mono;
  if (IsTerminal(to)) {
    *entry.job().mutable_end_time() = ToProto(now.wall);
    *entry.job().mutable_progress() = entry.progress;
    ended_.push_back(entry.job().uid());
  }
  IndexJob(entry);
  schedule_is_due_ = true;
  effects->transitions.push_back({from, to, std::string(reason)});
}

void Core::Finish(Now now, Effects* effects) {
  FollowEnds(now, effects);
  for (const std::string& uid : changed_) {
    JobEntry* entry = FindEntry(uid);
    if (entry == nullptr) continue;
    entry->is_touched = false;
    ++revision_;
    entry->record.set_revision(revision_);
    entry->job().set_etag(absl::StrCat(revision_));
    effects->writes.push_back(PutJob{entry->record});
    effects->writes.push_back(PutEvent{revision_, std::make_shared<const v1::Job>(entry->job())});
  }
  changed_.clear();
}

void Core::FollowEnds(Now now, Effects* effects) {
  std::map<std::pair<std::string, int64_t>, std::vector<int>> ended_trials;
  for (size_t i = 0; i < ended_.size(); ++i) {  // grows: trials end with their parent, others fail with what they need
    const JobEntry& entry = *FindEntry(std::string(ended_[i]));
    CancelTrials(entry, now, effects);
    TellDependents(entry, now, effects);
    if (entry.generation == nullptr) continue;
    effects->trial_ends.push_back(entry.state());
    ended_trials[{entry.job().parent_uid(), entry.job().generation()}].push_back(entry.job().trial_index());
  }
  ended_.clear();
  for (const auto& [key, indices] : ended_trials) {
    PushOutcomes(families_.at(key.first).at(key.second), indices, /*with_state=*/false, effects);
  }
}

Core::JobEntry* Core::FindEntry(const std::string& uid) {
  const auto it = jobs_.find(uid);
  return it == jobs_.end() ? nullptr : it->second.get();
}

const Core::JobEntry* Core::FindEntry(const std::string& uid) const {
  const auto it = jobs_.find(uid);
  return it == jobs_.end() ? nullptr : it->second.get();
}

Core::WorkerEntry* Core::WorkerOf(uint64_t session) {
  const auto it = sessions_.find(session);
  return it == sessions_.end() ? nullptr : &workers_.at(it->second);
}

void Core::Tick(Now now, Effects* effects) {
  // We were stopped, paused or stuck in a slow write: the heartbeats of that time wait unread in the sockets, so nobody
  // may be declared lost for it. Only ever extending leases keeps CP-23.
  const absl::Duration gap = now.mono - last_tick_;
  last_tick_ = now.mono;
  if (gap > timing_.lease_ttl / 4) {
    for (auto& [id, worker] : workers_) {
      if (worker.state != v1::WORKER_STATE_LOST) worker.lease_ends_at += gap;
    }
    for (const std::string& uid : occupying_) {
      JobEntry& entry = *FindEntry(uid);
      entry.ready_deadline_at += gap;
      entry.stop_deadline_at += gap;
    }
  }
  ExpireLeases(now, effects);
  for (const std::string& uid : std::exchange(first_steps_, {})) {
    if (JobEntry* entry = FindEntry(uid)) TakeFirstStep(*entry, effects);
  }

  // Copies, since what is done here moves jobs between the indices.
  const std::vector<std::string> occupying(occupying_.begin(), occupying_.end());
  for (const std::string& uid : occupying) {
    JobEntry& entry = *FindEntry(uid);
    if (entry.state() == v1::JOB_STATE_ADMITTED && now.mono >= entry.ready_deadline_at) {
      v1::ExitRecord exit;
      exit.set_failure_class(v1::FAILURE_CLASS_INFRA);
      exit.set_reason(entry.someone_is_ready ? "BARRIER_TIMEOUT" : "PREPARE_TIMEOUT");
      exit.set_rank(-1);
      for (const TaskRecord& task : entry.record.tasks()) {
        if (task.fence() == LiveAttempt(entry)->fence() && task.state() < v1::TASK_STATE_READY) {
          exit.set_worker_id(task.worker_id());
          exit.set_rank(task.ranks(0).rank());
          break;
        }
      }
      exit.set_message(absl::StrCat("rank ", exit.rank(), " on worker ", exit.worker_id(), " was not ready within ",
                                    Text(entry.someone_is_ready ? timing_.barrier_timeout : timing_.prepare_timeout)));
      FailAttempt(entry, v1::ATTEMPT_STATE_FAILED, std::move(exit), now, effects);
    }
    if (entry.state() == v1::JOB_STATE_RUNNING &&
        FromProto(entry.record.active_time()) + (now.mono - entry.running_since) >= entry.options.active_deadline) {
      BeginStopping(entry, v1::STOP_REASON_DEADLINE, now, effects);
    }
    if (entry.state() == v1::JOB_STATE_STOPPING) Settle(entry, now, effects);
  }
  const std::vector<QueueKey> waiting(waiting_.begin(), waiting_.end());
  for (const QueueKey& key : waiting) {
    JobEntry& entry = *FindEntry(std::get<2>(key));
    if (entry.record.decision_due()) Settle(entry, now, effects);
    if (entry.state() == v1::JOB_STATE_QUEUED && now.mono >= entry.queue_deadline_at) {
      v1::ExitRecord& exit = *Touch(entry).job().mutable_exit();
      exit.set_failure_class(v1::FAILURE_CLASS_USER);
      exit.set_reason("QUEUE_DEADLINE");
      exit.set_rank(-1);
      exit.set_message(
          absl::StrCat("waited in the queue longer than its queue_deadline of ", Text(entry.options.queue_deadline)));
      *exit.mutable_time() = ToProto(now.wall);
      SetState(entry, v1::JOB_STATE_FAILED, "QUEUE_DEADLINE", now, effects);
    }
    if (entry.state() == v1::JOB_STATE_RECOVERING && entry.retry_at > last_tick_ - gap && entry.retry_at <= now.mono) {
      schedule_is_due_ = true;  // its back-off ends now
    }
  }
  Finish(now, effects);
  if (now.mono >= next_retention_check_) {
    next_retention_check_ = now.mono + timing_.retention_interval;
    DeleteFinished(now, effects);
  }
}

void Core::DeleteFinished(Now now, Effects* effects) {
  for (auto it = requests_.begin(); it != requests_.end();) {
    if (FromProto(it->second.expire_time()) > now.wall) {
      ++it;
      continue;
    }
    const auto& [name_space, id, method] = it->first;
    effects->writes.push_back(DeleteRequest{name_space, id, method});
    it = requests_.erase(it);
  }
  std::vector<std::string> expired;
  for (const auto& [uid, entry] : jobs_) {
    if (entry->generation != nullptr) continue;  // goes with its parent
    if (!MayDelete(*entry) || FromProto(entry->job().end_time()) + entry->options.ttl_after_finish > now.wall) continue;
    expired.push_back(uid);
  }
  for (const std::string& uid : expired) DeleteEntry(uid, effects);
}

// Has it ended, with its trials, and is nothing left of its processes?
bool Core::MayDelete(const JobEntry& entry) const {
  if (!IsTerminal(entry.state())) return false;
  for (const TaskRecord& task : entry.record.tasks()) {
    if (task.state() != v1::TASK_STATE_EXITED) return false;
  }
  const auto family = families_.find(entry.job().uid());
  if (family == families_.end()) return true;
  for (const auto& [number, generation] : family->second) {
    for (const std::string& uid : generation.trials) {
      if (!MayDelete(*FindEntry(uid))) return false;
    }
  }
  return true;
}

void Core::DeleteEntry(const std::string& uid, Effects* effects) {
  if (const auto family = families_.find(uid); family != families_.end()) {
    for (const auto& [number, generation] : family->second) {
      for (const std::string& trial : generation.trials) DeleteEntry(trial, effects);
    }
    families_.erase(family);
  }
  const v1::Job& job = FindEntry(uid)->job();
  effects->writes.push_back(DeleteJob{uid});
  by_time_.erase({FromProto(job.submit_time()), uid});
  const auto named = newest_by_name_.find({job.namespace_(), job.name()});
  if (named != newest_by_name_.end() && named->second == uid) newest_by_name_.erase(named);
  jobs_.erase(uid);
}

}  // namespace trainyard::coordinator
