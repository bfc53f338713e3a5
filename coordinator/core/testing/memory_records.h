// A store in memory with the database's rules (CP-57) as checks: what script and simulation tests commit to.
#pragma once

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/transitions.h"

namespace trainyard::coordinator {

class MemoryRecords {
 public:
  // Aborts the test if a rule is broken.
  void Commit(const std::vector<Write>& writes) {
    bool has_deleted = false;
    for (const Write& write : writes) {
      Apply(write);
      has_deleted |= std::holds_alternative<DeleteJob>(write);
    }
    TY_CHECK_LT(last_fence_, next_fence_);
    if (!has_deleted) return;
    for (const auto& [place, uid] : trials_) {  // I23: an outcome stays as long as its parent
      TY_CHECK(jobs_.contains(uid) && jobs_.contains(std::get<0>(place)));
    }
  }

  // What a coordinator that starts now reads.
  Records Start() {
    Records records;
    for (const auto& [uid, record] : jobs_) records.jobs.push_back(record);
    for (const auto& [id, record] : workers_) records.workers.push_back(record);
    for (const auto& [key, record] : requests_) records.requests.push_back(record);
    for (const auto& [key, record] : generations_) records.generations.push_back(record);
    records.next_fence = next_fence_;
    records.revision = revision_;
    records.leader_epoch = ++leader_epoch_;
    return records;
  }

  const std::map<std::string, JobRecord>& jobs() const { return jobs_; }
  // (parent, generation, index) -> uid
  const std::map<std::tuple<std::string, int64_t, int>, std::string>& trials() const { return trials_; }
  // (worker, slot) -> fence
  const std::map<std::pair<std::string, int>, uint64_t>& held() const { return held_; }
  bool IsLive(const std::string& uid, uint64_t fence) const {
    const auto it = live_.find(uid);
    return it != live_.end() && it->second.second == fence;
  }

 private:
  void Apply(const Write& write) {
    if (const auto* w = std::get_if<PutJob>(&write)) {
      const v1::Job& job = w->record.job();
      const auto old = jobs_.find(job.uid());
      if (old != jobs_.end()) {
        if (IsTerminal(old->second.job().state())) {
          TY_CHECK_EQ(old->second.job().state(), job.state());                                            // I8
          TY_CHECK_EQ(old->second.job().result().SerializeAsString(), job.result().SerializeAsString());  // I23
        }
        TY_CHECK_GE(job.committed_step(), old->second.job().committed_step());  // I16
        TY_CHECK_GT(w->record.revision(), old->second.revision());
      }
      jobs_[job.uid()] = w->record;
      const auto name = std::make_pair(job.namespace_(), job.name());
      if (IsTerminal(job.state())) {
        if (const auto live = live_names_.find(name); live != live_names_.end() && live->second == job.uid()) {
          live_names_.erase(live);
        }
      } else {
        TY_CHECK_EQ(live_names_.emplace(name, job.uid()).first->second, job.uid());
      }
    } else if (const auto* w = std::get_if<DeleteJob>(&write)) {
      jobs_.erase(w->uid);
      std::erase_if(generations_, [&](const auto& generation) { return generation.first.first == w->uid; });
      std::erase_if(trials_, [&](const auto& trial) { return std::get<0>(trial.first) == w->uid; });
    } else if (const auto* w = std::get_if<OpenAttempt>(&write)) {
      TY_CHECK(live_.emplace(w->uid, std::make_pair(w->number, w->fence)).second);  // I4
      TY_CHECK_GT(w->fence, last_fence_);                                           // I5
      last_fence_ = w->fence;
      TY_CHECK_EQ(w->number, ++attempts_[w->uid]);
    } else if (const auto* w = std::get_if<CloseAttempt>(&write)) {
      TY_CHECK(live_.contains(w->uid) && live_.at(w->uid).first == w->number);
      live_.erase(w->uid);
    } else if (const auto* w = std::get_if<HoldSlot>(&write)) {
      TY_CHECK(held_.emplace(std::make_pair(w->worker_id, w->slot), w->fence).second);  // I1
    } else if (const auto* w = std::get_if<ReleaseSlot>(&write)) {
      const auto it = held_.find({w->worker_id, w->slot});
      TY_CHECK(it != held_.end() && it->second == w->fence);
      held_.erase(it);
    } else if (const auto* w = std::get_if<PutWorker>(&write)) {
      workers_[w->record.worker_id()] = w->record;
    } else if (const auto* w = std::get_if<DeleteWorker>(&write)) {
      for (const auto& [place, fence] : held_) TY_CHECK(place.first != w->worker_id);
      workers_.erase(w->worker_id);  // there may be none: a refused worker is not stored
    } else if (const auto* w = std::get_if<PutRequest>(&write)) {
      const bool is_new =
          requests_
              .emplace(std::make_tuple(w->record.namespace_(), w->record.request_id(), w->record.method()), w->record)
              .second;
      TY_CHECK(is_new);  // I3
    } else if (const auto* w = std::get_if<DeleteRequest>(&write)) {
      requests_.erase({w->name_space, w->request_id, w->method});
    } else if (const auto* w = std::get_if<PutEvent>(&write)) {
      TY_CHECK_EQ(w->revision, revision_ + 1);  // gapless
      revision_ = w->revision;
    } else if (const auto* w = std::get_if<PutGeneration>(&write)) {
      TY_CHECK(generations_.emplace(std::make_pair(w->record.parent_uid(), w->record.number()), w->record).second);
    } else if (const auto* w = std::get_if<PutTrial>(&write)) {
      TY_CHECK(trials_.emplace(std::make_tuple(w->parent_uid, w->generation, w->index), w->uid).second);  // I23
      TY_CHECK(generations_.contains({w->parent_uid, w->generation}));
    } else if (const auto* w = std::get_if<PutFence>(&write)) {
      next_fence_ = w->next_fence;
    }
  }

  std::map<std::string, JobRecord> jobs_;
  std::map<std::string, WorkerRecord> workers_;
  std::map<std::tuple<std::string, std::string, std::string>, RequestRecord> requests_;
  std::map<std::string, std::pair<int, uint64_t>> live_;
  std::map<std::pair<std::string, int>, uint64_t> held_;
  std::map<std::string, int> attempts_;
  std::map<std::pair<std::string, std::string>, std::string> live_names_;  // (namespace, name) -> uid
  std::map<std::pair<std::string, int64_t>, GenerationRecord> generations_;
  std::map<std::tuple<std::string, int64_t, int>, std::string> trials_;
  uint64_t next_fence_ = 1, last_fence_ = 0, revision_ = 0, leader_epoch_ = 0;
};

}  // namespace trainyard::coordinator
