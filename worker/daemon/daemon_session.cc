// The daemon's side of the session with the coordinator.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/version.h"
#include "proto/rpc/error_details.h"
#include "worker/daemon/daemon.h"
#include "worker/daemon/proto_time.h"

namespace trainyard::daemon {
namespace {

// Messages that may wait in the session before logs and progress hold back; they are on disk or in bounded buffers.
constexpr size_t kMaxQueued = 64;
constexpr int kLogChunksAtOnce = 32;

}  // namespace

void Daemon::Send(v1::WorkerMessage message) {
  if (generation_ != 0) session_->Send(generation_, std::move(message));
}

v1::Register Daemon::MakeRegister() const {
  v1::Register message;
  message.set_worker_id(identity_.worker_id);
  message.set_incarnation(identity_.incarnation);
  message.set_start_count(identity_.start_count);
  message.set_host(options_.host);
  message.set_address(options_.address);
  for (size_t i = 0; i < slots_.size(); ++i) {
    v1::WorkerSlot* slot = message.add_slots();
    slot->set_index(static_cast<int>(i));
    slot->set_type(slots_[i].type);
    slot->set_healthy(slots_[i].is_healthy() && !is_draining_);
    slot->set_health_message(is_draining_ ? "the worker is draining" : slots_[i].message());
    if (slots_[i].gpu < 0) continue;
    const GpuIdentity& gpu = gpus_[static_cast<size_t>(slots_[i].gpu)].identity;
    slot->mutable_gpu()->set_index(gpu.index);
    slot->mutable_gpu()->set_uuid(gpu.uuid);
    slot->mutable_gpu()->set_name(gpu.name);
    slot->mutable_gpu()->set_memory_bytes(gpu.memory_bytes);
    slot->mutable_gpu()->set_compute_capability(absl::StrCat(gpu.compute_major, ".", gpu.compute_minor));
  }
  for (const auto& [name, value] : options_.labels) (*message.mutable_labels())[name] = value;
  message.set_version(kVersion);
  for (const auto& [fence, entry] : tasks_) *message.add_tasks() = entry.task->report();
  message.set_max_leader_epoch(fences_.max_epoch());
  message.set_max_fence(fences_.max_fence());
  return message;
}

void Daemon::SendSlotHealth() {
  v1::WorkerMessage message;
  *message.mutable_slot_health()->mutable_slots() = MakeRegister().slots();
  Send(std::move(message));
}

void Daemon::OnOpen(uint64_t generation) {
  generation_ = generation;
  is_registered_ = false;
  opened_at_ = options_.clock->Monotonic();
  v1::WorkerMessage message;
  *message.mutable_register_() = MakeRegister();
  Send(std::move(message));
}

void Daemon::OnClosed(uint64_t generation, const absl::Status& status) {
  if (generation != generation_) return;
  const bool was_registered = is_registered_;
  generation_ = 0;
  is_registered_ = false;
  metrics_->SetConnected(false);
  heartbeat_sent_.clear();
  const std::string reason = GetErrorReason(status);
  if (reason == "SUPERSEDED") {
    LogError("the coordinator refuses this daemon: ", status.message(), "; ending all tasks and leaving");
    StopAll(v1::STOP_REASON_STALE, /*checkpoint=*/false, absl::ZeroDuration());
    end_ = absl::FailedPreconditionError(absl::StrCat("superseded: ", status.message()));
    return;
  }
  if (reason == "STORE_ROLLBACK") {
    LogError("the coordinator refuses this worker: ", status.message());
  } else if (was_registered) {
    LogWarning("lost the coordinator at ", options_.session.coordinator, ": ", status.ToString(),
               "; tasks go on, reconnecting");
    outage_messages_ = 0;
  } else if (outage_messages_++ == 0) {  // once an outage, not once a try
    LogWarning("cannot reach the coordinator at ", options_.session.coordinator, ": ", status.ToString(),
               "; trying again for as long as it takes");
  }
}

void Daemon::OnMessage(uint64_t generation, v1::CoordinatorMessage message) {
  if (generation != generation_) return;
  if (message.has_registered()) return OnRegistered(message.registered());
  if (!is_registered_) return;
  switch (message.message_case()) {
    case v1::CoordinatorMessage::kHeartbeatAck: {
      const uint64_t sequence = message.heartbeat_ack().sequence();
      lease_.HeartbeatAcked(sequence);
      const auto sent = heartbeat_sent_.find(sequence);
      if (sent != heartbeat_sent_.end()) {
        metrics_->HeartbeatRoundTrip(options_.clock->Monotonic() - sent->second);
        heartbeat_sent_.erase(heartbeat_sent_.begin(), std::next(sent));
      }
      for (auto& [fence, entry] : tasks_) entry.progress->HeartbeatAcked(sequence);
      break;
    }
    case v1::CoordinatorMessage::kAssign:
      OnAssign(message.assign());
      break;
    case v1::CoordinatorMessage::kStart:
      if (Entry* entry = FindEntry(message.start().ref())) {
        entry->task->Start(message.start().start(), options_.clock->Monotonic());
      } else {
        LogWarning("start of task ", TaskName(message.start().ref()), ", which is not here");
      }
      break;
    case v1::CoordinatorMessage::kStop:
      OnStop(message.stop());
      break;
    case v1::CoordinatorMessage::kReportAck:
      if (Entry* entry = FindEntry(message.report_ack().ref())) {
        entry->acked = std::max(entry->acked, message.report_ack().sequence());
      }
      break;
    case v1::CoordinatorMessage::kLogAck:
      spool_.Acked(message.log_ack());
      break;
    case v1::CoordinatorMessage::kCheckpointAck:
      OnCheckpointAck(message.checkpoint_ack());
      break;
    case v1::CoordinatorMessage::kTrialsAck:
      OnTrialsAck(message.trials_ack());
      break;
    default:
      LogWarning("a message of the coordinator that this version does not know");
  }
}

void Daemon::OnRegistered(const v1::Registered& registered) {
  if (const absl::Status admitted = fences_.AdmitEpoch(registered.leader_epoch()); !admitted.ok()) {
    LogError("leaving the session: ", admitted.message());
    session_->Close(generation_);
    return;
  }
  const absl::Duration now = options_.clock->Monotonic();
  is_registered_ = true;
  is_fenced_ = false;
  outage_messages_ = 0;
  session_->ResetBackoff();
  heartbeat_interval_ = std::max(FromProto(registered.heartbeat_interval()), absl::Milliseconds(10));
  lease_ttl_ = FromProto(registered.lease_ttl());
  lease_.Registered(lease_ttl_, FromProto(registered.self_fence_after()), opened_at_);
  next_heartbeat_ = now;
  metrics_->SetConnected(true);
  metrics_->SessionOpened();
  LogInfo("registered with ", options_.session.coordinator, " as ", identity_.worker_id, ", leader epoch ",
          registered.leader_epoch());
  spool_.Rewind();
  for (auto& [fence, entry] : tasks_) {
    entry.progress->Rewind();
    entry.sent = 0;
    for (const auto& [step, manifest] : entry.commits) SendCommit(entry, manifest);
    if (entry.trials) SendTrials(entry);
  }
  for (const v1::TaskDecision& decision : registered.decisions()) {
    Entry* entry = FindEntry(decision.ref());
    if (entry == nullptr || decision.keep()) continue;
    if (decision.quarantine()) entry->quarantine_dir = entry->task->assign().job_dir();
    if (entry->task->finished()) {
      // The register message carried this end, and the decision shows that it was read.
      entry->acked = entry->task->report().sequence();
    } else if (decision.has_stop()) {
      OnStop(decision.stop());
    } else {
      entry->task->Stop(v1::STOP_REASON_STALE, /*checkpoint=*/false, absl::ZeroDuration(), now);
    }
  }
}

void Daemon::OnStop(const v1::StopTask& stop) {
  if (Entry* entry = FindEntry(stop.ref())) {
    LogInfo("stopping task ", TaskName(stop.ref()), ": ", v1::StopReason_Name(stop.reason()),
            stop.checkpoint() ? ", with a checkpoint" : "");
    entry->task->Stop(stop.reason(), stop.checkpoint(), FromProto(stop.grace()), options_.clock->Monotonic());
    return;
  }
  // It ended and was acknowledged, or never came: either way nothing of it is here.
  v1::WorkerMessage message;
  *message.mutable_task_report()->mutable_ref() = stop.ref();
  message.mutable_task_report()->set_sequence(1);
  message.mutable_task_report()->set_state(v1::TASK_STATE_EXITED);
  Send(std::move(message));
}

void Daemon::OnCheckpointAck(const v1::CheckpointAck& ack) {
  Entry* entry = FindEntry(ack.ref());
  if (entry == nullptr) return;
  entry->commits.erase(ack.step());
  const auto rank = entry->ranks.find(0);
  if (rank == entry->ranks.end() || rank->second.io == nullptr) return;
  v1::RunnerCommand command;
  command.mutable_checkpoint_reply()->set_step(ack.step());
  command.mutable_checkpoint_reply()->set_code(ack.code());
  command.mutable_checkpoint_reply()->set_message(ack.message());
  rank->second.io->Send(command);
}

void Daemon::OnTrialsAck(const v1::TrialsAck& ack) {
  Entry* entry = FindEntry(ack.ref());
  if (entry == nullptr || ack.ref().attempt() != entry->task->ref().attempt()) return;
  const v1::TrialOutcomes& outcomes = ack.outcomes();
  // What comes again after the rank has everything is of no use to it.
  if (!entry->trials || entry->trials->number() != outcomes.generation()) return;
  if (outcomes.done() || outcomes.code() != 0) entry->trials.reset();
  const auto rank = entry->ranks.find(0);
  if (rank == entry->ranks.end() || rank->second.io == nullptr) return;
  v1::RunnerCommand command;
  *command.mutable_trial_outcomes() = outcomes;
  rank->second.io->Send(command);
}

void Daemon::SendProgress(Entry& entry) {
  while (std::optional<v1::ProgressReport> report = entry.progress->Take(heartbeat_sequence_)) {
    v1::WorkerMessage message;
    *message.mutable_progress() = *std::move(report);
    Send(std::move(message));
  }
}

void Daemon::SendCommit(Entry& entry, const v1::CheckpointManifest& manifest) {
  // If the attempt ends after this, the next one begins at the checkpoint: the steps before it would be in no history.
  SendProgress(entry);
  v1::WorkerMessage message;
  *message.mutable_commit_checkpoint()->mutable_ref() = entry.task->ref();
  *message.mutable_commit_checkpoint()->mutable_manifest() = manifest;
  Send(std::move(message));
}

void Daemon::SendTrials(const Entry& entry) {
  v1::WorkerMessage message;
  *message.mutable_run_trials()->mutable_ref() = entry.task->ref();
  *message.mutable_run_trials()->mutable_generation() = *entry.trials;
  Send(std::move(message));
}

void Daemon::SendReports(absl::Duration now) {
  for (auto& [fence, entry] : tasks_) {
    const uint64_t sequence = entry.task->report().sequence();
    if (entry.acked >= sequence) continue;
    if (entry.sent == sequence && now - entry.sent_at < options_.resend_after) continue;
    SendProgress(entry);  // the last steps must not arrive after the end
    v1::WorkerMessage message;
    *message.mutable_task_report() = entry.task->report();
    Send(std::move(message));
    entry.sent = sequence;
    entry.sent_at = now;
  }
}

void Daemon::TickSession(absl::Duration now) {
  if (!is_fenced_ && lease_.MustFence(now) && !tasks_.empty()) {
    is_fenced_ = true;
    LogError("no contact with the coordinator for ", absl::FormatDuration(now - lease_.contact()),
             ": ending all tasks");
    // A checkpoint could not be committed, so it would only cost time.
    StopAll(v1::STOP_REASON_STALE, /*checkpoint=*/false, std::nullopt);
  }
  if (generation_ == 0) return;
  if (!is_registered_) {
    if (now - opened_at_ >= options_.register_timeout) session_->Close(generation_);
    return;
  }
  if (!lease_.Holds(now)) {
    // It neither answers nor closes: paused, or cut off without a word.
    LogWarning("no heartbeat was acknowledged for ", absl::FormatDuration(now - lease_.contact()),
               "; opening a new session");
    session_->Close(generation_);
    opened_at_ = now;  // until the end is seen, wait as for a registration
    is_registered_ = false;
    metrics_->SetConnected(false);
    return;
  }
  if (now >= next_heartbeat_) {
    next_heartbeat_ = now + heartbeat_interval_;
    v1::WorkerMessage message;
    message.mutable_heartbeat()->set_sequence(++heartbeat_sequence_);
    lease_.HeartbeatSent(heartbeat_sequence_, now);
    heartbeat_sent_[heartbeat_sequence_] = now;
    Send(std::move(message));
  }
  // First: a slot that an ended task leaves behind unhealthy must not get the next one.
  if (std::exchange(slots_changed_, false)) SendSlotHealth();
  SendReports(now);
  if (session_->queued() > kMaxQueued) return;
  if (now >= next_progress_) {
    next_progress_ = now + options_.progress_interval;
    for (auto& [fence, entry] : tasks_) SendProgress(entry);
  }
  if (now >= next_logs_) {
    const std::vector<v1::LogChunk> chunks = spool_.NextChunks(kLogChunksAtOnce);
    // More at once while there is a backlog.
    next_logs_ = now + (chunks.size() == kLogChunksAtOnce ? absl::ZeroDuration() : options_.log_interval);
    for (const v1::LogChunk& chunk : chunks) {
      v1::WorkerMessage message;
      *message.mutable_log() = chunk;
      Send(std::move(message));
    }
  }
}

}  // namespace trainyard::daemon
