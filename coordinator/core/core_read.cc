// What is read from the core.
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/core/core.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "proto/rpc/error_details.h"

namespace trainyard::coordinator {

absl::StatusOr<std::string> Core::Find(const std::string& name_space, const std::string& job) const {
  const JobEntry* by_uid = FindEntry(job);
  if (by_uid != nullptr && (name_space.empty() || by_uid->job().namespace_() == name_space)) return job;
  const std::string space = name_space.empty() ? "default" : name_space;
  const auto named = newest_by_name_.find({space, job});
  if (named != newest_by_name_.end()) return named->second;
  return ErrorWithReason(absl::StatusCode::kNotFound, "JOB_NOT_FOUND",
                         absl::StrCat("no job \"", job, "\" in namespace ", space),
                         {{"job", job}, {"namespace", space}});
}

v1::Job Core::View(const std::string& uid, Now now, const std::map<spec::SlotType, Capacity>& capacities) const {
  const JobEntry* entry = FindEntry(uid);
  TY_CHECK(entry != nullptr);
  v1::Job job = entry->job();
  AddGenerations(&job);
  if (IsTerminal(job.state())) return job;
  *job.mutable_progress() = entry->progress;
  if (last_decision_ > absl::InfinitePast()) *job.mutable_decision_time() = ToProto(last_decision_);
  v1::PendingReason pending = PendingOf(*entry, capacities, now);
  if (pending.code() != v1::PendingReason::CODE_UNSPECIFIED) *job.mutable_pending() = std::move(pending);
  if (waiting_.contains(KeyOf(*entry))) job.set_queue_position(QueuePosition(*entry));
  return job;
}

// 1-based. Walks from both ends, so that a job that has just been submitted, most often the last, costs little.
int Core::QueuePosition(const JobEntry& entry) const {
  const std::set<QueueKey>& queue = waiting_by_queue_.at(entry.job().queue());
  const QueueKey key = KeyOf(entry);
  auto front = queue.begin();
  auto back = queue.rbegin();
  for (int steps = 0;; ++steps, ++front, ++back) {
    if (*front == key) return steps + 1;
    if (*back == key) return static_cast<int>(queue.size()) - steps;
  }
}

const JobRecord* Core::Record(const std::string& uid) const {
  const JobEntry* entry = FindEntry(uid);
  return entry == nullptr ? nullptr : &entry->record;
}

std::vector<std::string> Core::Waiting(size_t limit) const {
  std::vector<std::string> uids;
  for (auto it = waiting_.begin(); it != waiting_.end() && uids.size() < limit; ++it) uids.push_back(std::get<2>(*it));
  return uids;
}

const std::vector<std::string>* Core::TrialsOf(const std::string& parent_uid, int64_t generation) const {
  const auto family = families_.find(parent_uid);
  if (family == families_.end()) return nullptr;
  const auto found = family->second.find(generation);
  return found == family->second.end() ? nullptr : &found->second.trials;
}

std::vector<std::string> Core::Uids() const {
  std::vector<std::string> uids;
  for (auto it = by_time_.rbegin(); it != by_time_.rend(); ++it) uids.push_back(it->second);
  return uids;
}

std::map<std::tuple<v1::JobState, std::string, std::string>, int> Core::CountJobs() const {
  std::map<std::tuple<v1::JobState, std::string, std::string>, int> counts;
  for (const auto& [uid, entry] : jobs_) {
    ++counts[{entry->state(), entry->job().queue(), entry->job().kind()}];
  }
  return counts;
}

std::map<v1::PendingReason::Code, int> Core::CountPending(Now now) const {
  std::map<v1::PendingReason::Code, int> counts;
  const auto capacities = Capacities();
  for (const QueueKey& key : waiting_) ++counts[PendingOf(*FindEntry(std::get<2>(key)), capacities, now).code()];
  return counts;
}

}  // namespace trainyard::coordinator
