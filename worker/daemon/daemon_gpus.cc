// The daemon's side of GPUs: from what the driver says to what may run.
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/daemon/daemon.h"

namespace trainyard::daemon {

absl::Status Daemon::StartGpus(std::unique_ptr<Nvml> nvml) {
  if (gpus_.empty()) return absl::OkStatus();
  if (nvml == nullptr) return absl::InvalidArgumentError("GPUs are offered without NVIDIA's management library");
  TY_ASSIGN_OR_RETURN(gpu_faults_, FaultLog::Open(JoinPath(options_.state_dir, "gpu_faults"),
                                                  options_.gpu.boot_id.empty() ? BootId() : options_.gpu.boot_id));
  std::set<int> indices;
  for (const Gpu& gpu : gpus_) indices.insert(gpu.identity.index);
  absl::StatusOr<JobMapping> mapping = JobMapping::Create(options_.gpu.job_mapping_dir, indices);
  if (!mapping.ok()) return Annotate(mapping.status(), "the folder of job mappings");
  job_mapping_ = *std::move(mapping);
  std::vector<GpuFacts> facts = ProbeAll(*nvml, options_.gpu.offered);
  for (size_t i = 0; i < gpus_.size(); ++i) {
    gpus_[i].facts = std::move(facts[i]);
    JudgeGpu(gpus_[i]);
  }
  gpu_asked_at_ = options_.clock->Monotonic();
  gpu_monitor_ = GpuMonitor::Start(
      std::move(nvml), options_.gpu.offered,
      {.on_snapshot =
           [this](GpuSnapshot snapshot) {
             loop_.Post([this, snapshot = std::move(snapshot)] { OnGpuSnapshot(snapshot); });
           },
       .on_xid = [this](XidEvent event) { loop_.Post([this, event = std::move(event)] { OnXid(event); }); }});
  return absl::OkStatus();
}

uint64_t Daemon::AskGpus(absl::Duration now) {
  if (gpu_ticket_asked_ == gpu_ticket_seen_) gpu_silent_from_ = now;
  gpu_asked_at_ = now;
  gpu_ticket_asked_ = gpu_monitor_->Probe();
  return gpu_ticket_asked_;
}

void Daemon::OnGpuSnapshot(const GpuSnapshot& snapshot) {
  gpu_ticket_seen_ = snapshot.ticket;
  gpu_silent_from_ = options_.clock->Monotonic();
  for (size_t i = 0; i < gpus_.size(); ++i) {
    gpus_[i].facts = snapshot.gpus[i];
    JudgeGpu(gpus_[i]);
  }
}

void Daemon::OnXid(const XidEvent& event) {
  const XidClass xid_class = ClassOfXid(event.xid, options_.gpu.policy);
  if (xid_class == XidClass::kIgnored) return;
  const absl::Time wall = options_.clock->Now();
  for (Gpu& gpu : gpus_) {
    if (gpu.identity.uuid != event.uuid) continue;
    metrics_->GpuXid(gpu.identity.index, event.uuid, NameOf(xid_class));
    const std::string text = absl::StrCat(XidText(event.xid), " on GPU ", gpu.identity.index, " (", event.uuid, ")");
    if (xid_class == XidClass::kNoted) {
      LogWarning(text, "; by --gpu_fatal_xids the GPU stays in use");
      continue;
    }
    const absl::Status kept = gpu_faults_->Add(event, wall);
    if (!kept.ok()) LogWarning(text, " will be forgotten when this daemon ends: ", kept.message());
    JudgeGpu(gpu);
    for (auto& [fence, entry] : tasks_) {
      for (const auto& [rank, process] : entry.ranks) {
        if (SlotOf(entry, rank).gpu != slots_[static_cast<size_t>(gpu.slot)].gpu) continue;
        LogError(text, " ends task ", TaskName(entry.task->ref()));
        entry.task->DeviceFailed(rank, "GPU_XID", text, wall, options_.clock->Monotonic());
      }
    }
  }
}

void Daemon::TickGpus(absl::Duration now) {
  if (gpu_monitor_ == nullptr) return;
  const bool is_open = gpu_ticket_asked_ != gpu_ticket_seen_;
  if (!is_open && now - gpu_asked_at_ >= options_.gpu.probe_interval) AskGpus(now);
  if (is_open && now - gpu_silent_from_ >= options_.gpu.silence_timeout) {
    for (Gpu& gpu : gpus_) {
      // The next snapshot, should one come, says otherwise.
      gpu.facts = {};
      gpu.facts.error =
          absl::StrCat("NVIDIA's driver has not answered for ", absl::FormatDuration(options_.gpu.silence_timeout));
      JudgeGpu(gpu);
    }
  }
  for (auto& [fence, entry] : tasks_) {
    if (entry.gate) PassGate(entry, now);
    std::vector<int> gone;
    for (const auto& [rank, process] : entry.ranks) {
      if (process.release) gone.push_back(rank);
    }
    for (const int rank : gone) Release(entry, rank, now);
  }
}

// CP-37.
void Daemon::PassGate(Entry& entry, absl::Duration now) {
  const bool was_stopped = entry.task->is_stopping();
  if (!was_stopped && gpu_ticket_seen_ < entry.gate->ticket && now < entry.gate->deadline) return;
  const bool was_seen = gpu_ticket_seen_ >= entry.gate->ticket;
  entry.gate.reset();
  const v1::Assign& assign = entry.task->assign();
  std::set<int> refused;
  for (const v1::RankAssignment& rank : assign.ranks()) {
    const Slot& slot = SlotOf(entry, rank.rank());
    if (!slot.is_healthy() || (slot.gpu >= 0 && !was_seen)) refused.insert(rank.rank());
  }
  if (!was_stopped && refused.empty()) return StartRanks(entry);

  const absl::Time wall = options_.clock->Now();
  for (const v1::RankAssignment& rank : assign.ranks()) {
    for (const char* stream : {"stdout", "stderr"}) spool_.End(assign.ref(), rank.rank(), stream);
  }
  if (!was_stopped) {
    for (const int rank : refused) {
      const Slot& slot = SlotOf(entry, rank);
      const std::string why = slot.is_healthy() ? "NVIDIA's driver does not answer" : slot.message();
      const int index = slot.gpu < 0 ? -1 : gpus_[static_cast<size_t>(slot.gpu)].identity.index;
      LogError("rank ", rank, " of ", TaskName(assign.ref()), " is not started: GPU ", index, ": ", why);
      entry.task->SpawnFailed(rank,
                              absl::UnavailableError(absl::StrCat("GPU ", index, " of ", options_.host, ": ", why)),
                              wall, now, "GPU_UNHEALTHY");
    }
  }
  for (const v1::RankAssignment& rank : assign.ranks()) {
    if (was_stopped || refused.count(rank.rank()) == 0) entry.task->NotStarted(rank.rank(), wall);
  }
}

// CP-21: the slot is free when the memory is.
void Daemon::Release(Entry& entry, int rank, absl::Duration now) {
  GpuWait& wait = *entry.ranks.at(rank).release;
  Gpu& gpu = gpus_[static_cast<size_t>(SlotOf(entry, rank).gpu)];
  const bool is_late = now >= wait.deadline;
  const bool was_seen = gpu_ticket_seen_ >= wait.ticket;
  if (!was_seen && !is_late) return;
  if (!was_seen && gpu.facts.error.empty()) {
    gpu.facts.error = "NVIDIA's driver has not answered since the last rank on it ended";
  }
  const bool is_free = gpu.facts.used_bytes <= options_.gpu.policy.memory_tolerance_bytes;
  if (gpu.facts.error.empty() && !is_free && !is_late) {
    if (now - wait.asked_at >= options_.gpu.release_interval) {
      wait.asked_at = now;
      AskGpus(now);  // every later look will do
    }
    return;
  }
  const std::string broken = WhyUnhealthy(gpu.facts, gpu_faults_->xids(gpu.identity.uuid), options_.gpu.policy,
                                          /*must_be_free=*/false);
  if (!broken.empty()) {
    entry.task->DeviceFailed(rank, "GPU_UNHEALTHY", absl::StrCat("GPU ", gpu.identity.index, ": ", broken),
                             options_.clock->Now(), now);
  } else if (!is_free) {
    LogError("GPU ", gpu.identity.index, ": ", gpu.facts.used_bytes >> 20, " MiB are still in use ",
             absl::FormatDuration(options_.gpu.release_timeout), " after the end of ", TaskName(entry.task->ref()));
  }
  FreeSlot(entry, rank);
  JudgeGpu(gpu);
}

void Daemon::JudgeGpu(Gpu& gpu) {
  Slot& slot = slots_[static_cast<size_t>(gpu.slot)];
  std::string why = WhyUnhealthy(gpu.facts, gpu_faults_->xids(gpu.identity.uuid), options_.gpu.policy,
                                 /*must_be_free=*/!IsOccupied(gpu.slot));
  if (why.empty() != slot.gpu_fault.empty()) {
    if (why.empty()) {
      LogInfo("slot ", gpu.slot, ", GPU ", gpu.identity.index, " (", gpu.identity.uuid, ") is well");
    } else {
      LogError("slot ", gpu.slot, ", GPU ", gpu.identity.index, " (", gpu.identity.uuid, ") is unhealthy: ", why);
    }
  }
  slots_changed_ |= why != slot.gpu_fault;
  slot.gpu_fault = std::move(why);
  metrics_->SetGpu(gpu.identity.index, gpu.identity.uuid, slot.gpu_fault.empty(), gpu.facts.used_bytes);
}

bool Daemon::IsOccupied(int slot) const {
  for (const auto& [fence, entry] : tasks_) {
    for (const v1::RankStatus& status : entry.task->report().ranks()) {
      if (status.slot() == slot && entry.ranks.count(status.rank()) > 0) return true;
    }
  }
  return false;
}

std::vector<std::string> Daemon::EnvironmentFor(const Slot& slot) const {
  // A rank sees its own GPU and no other; one on a CPU slot sees none. A host name for NCCL that the daemon happened to
  // be started with would make ranks of one host look like ranks of several.
  std::vector<std::string> changes = {
      absl::StrCat("CUDA_VISIBLE_DEVICES=", slot.gpu < 0 ? "" : gpus_[static_cast<size_t>(slot.gpu)].identity.uuid),
      "NCCL_HOSTID"};
  changes.insert(changes.end(), options_.runner_environment.begin(), options_.runner_environment.end());
  return changes;
}

void Daemon::MapJob(const Slot& slot, const std::string& job_uid) {
  if (slot.gpu < 0) return;
  const int index = gpus_[static_cast<size_t>(slot.gpu)].identity.index;
  const absl::Status mapped = job_uid.empty() ? job_mapping_->Clear(index) : job_mapping_->Set(index, job_uid);
  // Training does not need it.
  if (!mapped.ok()) LogWarning("dcgm-exporter will not know the job of GPU ", index, ": ", mapped.message());
}

}  // namespace trainyard::daemon
