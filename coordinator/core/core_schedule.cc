// Who runs next and where, and for everybody else the reason why not (CP-6, CP-39, CP-43).
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "coordinator/core/core.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"

namespace trainyard::coordinator {
namespace {

spec::SlotType TypeOf(const v1::WorkerSlot& slot) {
  if (slot.type() == v1::SLOT_TYPE_DRIVER) return spec::SlotType::kDriver;
  return slot.type() == v1::SLOT_TYPE_GPU ? spec::SlotType::kGpu : spec::SlotType::kCpu;
}

const char* NameOf(spec::SlotType type) {
  if (type == spec::SlotType::kDriver) return "driver";
  return type == spec::SlotType::kGpu ? "gpu" : "cpu";
}

}  // namespace

std::vector<FreeWorker> Core::FreeWorkers(spec::SlotType type) const {
  std::vector<FreeWorker> free;
  for (const auto& [id, worker] : workers_) {
    if (worker.state != v1::WORKER_STATE_READY) continue;
    FreeWorker candidate{.worker_id = id, .host = worker.record.host(), .free_slots = {}};
    for (const v1::WorkerSlot& slot : worker.record.slots()) {
      if (TypeOf(slot) == type && slot.healthy() && !worker.held.contains(slot.index())) {
        candidate.free_slots.push_back(slot.index());
      }
    }
    std::sort(candidate.free_slots.begin(), candidate.free_slots.end());
    if (!candidate.free_slots.empty()) free.push_back(std::move(candidate));
  }
  return free;
}

std::map<spec::SlotType, Capacity> Core::Capacities() const {
  std::map<spec::SlotType, Capacity> capacities;
  for (const auto& [id, worker] : workers_) {
    const bool counts = worker.state == v1::WORKER_STATE_READY || worker.state == v1::WORKER_STATE_DISCONNECTED;
    if (!counts) continue;
    std::map<spec::SlotType, int> free;
    for (const v1::WorkerSlot& slot : worker.record.slots()) {
      if (!slot.healthy()) continue;
      ++capacities[TypeOf(slot)].total;
      if (worker.session != 0 && !worker.held.contains(slot.index())) ++free[TypeOf(slot)];
    }
    for (const auto& [type, count] : free) {
      capacities[type].free += count;
      capacities[type].largest_free = std::max(capacities[type].largest_free, count);
    }
  }
  return capacities;
}

// Is it only slots that the job lacks?
bool Core::MayPlace(const JobEntry& entry, Now now) const {
  if (WaitsForOthers(entry)) return false;
  if (entry.state() == v1::JOB_STATE_QUEUED) return true;
  return entry.state() == v1::JOB_STATE_RECOVERING && !entry.record.decision_due() && now.mono >= entry.retry_at;
}

bool Core::Schedule(Now now, Effects* effects) {
  if (!schedule_is_due_) return false;
  schedule_is_due_ = false;
  last_decision_ = now.wall;
  struct Pool {
    std::vector<FreeWorker> workers;
    int free = 0;
    bool is_reserved = false;  // somebody has waited so long that nobody behind may pass
  };
  std::map<spec::SlotType, Pool> pools;
  int open = 0;  // pools that could still serve somebody
  for (const spec::SlotType type : {spec::SlotType::kCpu, spec::SlotType::kGpu, spec::SlotType::kDriver}) {
    Pool& pool = pools[type];
    pool.workers = FreeWorkers(type);
    for (const FreeWorker& worker : pool.workers) pool.free += static_cast<int>(worker.free_slots.size());
    if (pool.free > 0) ++open;
  }
  std::vector<std::pair<std::string, std::vector<v1::RankPlace>>> placed;
  std::map<const Generation*, int> placed_trials;
  for (const QueueKey& key : waiting_) {
    if (open == 0) break;
    const JobEntry& entry = *FindEntry(std::get<2>(key));
    Pool& pool = pools[entry.gang.slot_type];
    if (pool.free == 0 || !MayPlace(entry, now)) continue;
    Admissions& admissions = effects->admissions;
    if (pool.is_reserved) {
      ++admissions.reserved;
      continue;
    }
    if (entry.generation != nullptr && IsHeld(entry, placed_trials[entry.generation])) {
      ++admissions.held;
      continue;
    }
    std::optional<std::vector<v1::RankPlace>> places;
    if (entry.gang.max <= pool.free) {
      places =
          Place({.ranks = entry.gang.max,
                 .slots_per_worker = entry.gang.slots_per_worker.value_or(0),
                 .avoided_workers = {entry.record.avoided_workers().begin(), entry.record.avoided_workers().end()}},
                pool.workers);
    }
    if (!places) {
      ++(entry.gang.max > pool.free ? admissions.not_enough_slots : admissions.fragmented);
      pool.is_reserved = now.mono - entry.waiting_since >= timing_.reserve_after;
      if (pool.is_reserved) --open;
      continue;
    }
    for (const v1::RankPlace& place : *places) {
      for (FreeWorker& worker : pool.workers) {
        if (worker.worker_id == place.worker_id()) std::erase(worker.free_slots, place.slot());
      }
    }
    std::erase_if(pool.workers, [](const FreeWorker& worker) { return worker.free_slots.empty(); });
    ++admissions.placed;
    pool.free -= static_cast<int>(places->size());
    if (pool.free == 0) --open;
    if (entry.generation != nullptr) ++placed_trials[entry.generation];
    placed.emplace_back(entry.job().uid(), *std::move(places));
  }
  for (const auto& [uid, places] : placed) CreateAttempt(*FindEntry(uid), places, now, effects);
  Finish(now, effects);
  return true;
}

v1::PendingReason Core::PendingOf(const JobEntry& entry, const std::map<spec::SlotType, Capacity>& capacities,
                                  Now now) const {
  v1::PendingReason pending;
  switch (entry.state()) {
    case v1::JOB_STATE_SUSPENDED:
      pending.set_code(v1::PendingReason::CODE_SUSPENDED);
      pending.set_message("suspended; resume it to let it run");
      return pending;
    case v1::JOB_STATE_STOPPING:
      pending.set_code(v1::PendingReason::CODE_WAITING_FOR_STOP);
      pending.set_message(absl::StrCat("waits for its processes to stop (", ShortName(entry.job().stop_reason()), ")"));
      return pending;
    case v1::JOB_STATE_QUEUED:
    case v1::JOB_STATE_RECOVERING:
      break;
    default:
      return pending;
  }
  const spec::SlotType type = entry.gang.slot_type;
  const auto found = capacities.find(type);
  const Capacity capacity = found == capacities.end() ? Capacity() : found->second;
  pending.set_slots_needed(entry.gang.max);
  pending.set_slots_free(capacity.free);
  pending.set_slots_total(capacity.total);
  if (entry.record.decision_due()) {
    pending.set_code(v1::PendingReason::CODE_WAITING_FOR_STOP);
    pending.set_message("waits for the processes of the failed attempt to stop");
    return pending;
  }
  if (WaitsForOthers(entry)) {
    pending.set_code(v1::PendingReason::CODE_WAITING_FOR_DEPENDENCY);
    pending.set_message(DependencyText(entry));
    return pending;
  }
  if (entry.generation != nullptr && IsHeld(entry, 0)) {
    pending.set_code(v1::PendingReason::CODE_HELD_BY_PARENT);
    pending.set_message(HoldText(entry));
    return pending;
  }
  if (entry.state() == v1::JOB_STATE_RECOVERING && now.mono < entry.retry_at) {
    pending.set_code(v1::PendingReason::CODE_BACKOFF);
    pending.set_message(absl::StrCat("next attempt in ", Text(entry.retry_at - now.mono)));
    *pending.mutable_retry_time() = entry.record.retry_time();
    return pending;
  }
  const bool in_grace =
      now.mono < grace_ends_at_ && std::any_of(workers_.begin(), workers_.end(), [](const auto& worker) {
        return worker.second.state == v1::WORKER_STATE_DISCONNECTED;
      });
  const std::string numbers =
      absl::StrCat("needs ", entry.gang.max, " ", NameOf(type), " slots, ", capacity.free, " of ", capacity.total,
                   " are free, at most ", capacity.largest_free, " on one worker");
  if (capacity.free < entry.gang.max) {
    pending.set_code(in_grace ? v1::PendingReason::CODE_RECOVERING_COORDINATOR
                              : v1::PendingReason::CODE_NOT_ENOUGH_SLOTS);
    pending.set_message(in_grace ? absl::StrCat("the coordinator has just started and waits for workers: ", numbers)
                                 : numbers);
    return pending;
  }
  const int per_worker = entry.gang.slots_per_worker.value_or(0);
  if (per_worker > 0 &&
      !Place({.ranks = entry.gang.max, .slots_per_worker = per_worker, .avoided_workers = {}}, FreeWorkers(type))) {
    pending.set_code(v1::PendingReason::CODE_NOT_ENOUGH_SLOTS);
    pending.set_message(absl::StrCat(numbers, ", and at most ", per_worker, " may be used on one worker"));
    return pending;
  }
  pending.set_code(v1::PendingReason::CODE_BEHIND_OTHERS);
  pending.set_message(absl::StrCat(numbers, "; others go first"));
  return pending;
}

}  // namespace trainyard::coordinator
