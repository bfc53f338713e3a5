// The runner's side of JobContext: sections, wall time by category, and the reports that tell users and the watchdog.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "base/clock.h"
#include "base/mutex.h"
#include "proto/v1/link.pb.h"
#include "worker/cache/file_cache.h"
#include "worker/comm/communicator.h"
#include "worker/jobs/job.h"
#include "worker/runner/stop_flag.h"

namespace trainyard::runner {

// Sends a report to the daemon. A failure means that the daemon has gone, which ends the process by itself.
using ReportFunction = std::function<void(const v1::RunnerReport&)>;

class RankContext final : public jobs::JobContext {
 public:
  RankContext(jobs::JobPlace place, StopFlag* stop, ReportFunction report, Clock* clock);

  // Once the ranks are connected; both are borrowed.
  void Connected(comm::Communicator* data, comm::Communicator* control);
  // For rank 0 of a kind that asks for trials, once it is connected; borrowed.
  void OfferTrials(jobs::Trials* trials) { trials_ = trials; }
  // Borrowed. How it is used is told with each unit: values cache_{hit,miss,bypass}_{files,bytes}.
  void OfferCache(cache::FileCache* cache) { cache_ = cache; }

  const jobs::JobPlace& place() const override { return place_; }
  comm::Communicator* communicator() override { return data_; }
  bool ShouldStop() override;
  absl::StatusOr<bool> AgreeToStop() override;
  jobs::Trials* trials() override { return trials_; }
  cache::FileCache* file_cache() override { return cache_; }
  void EnterSection(absl::string_view section) override;
  std::string section();

  // Reports the end of a unit. Adds `extra` and, unless the job gave it, step_seconds to the unit's metrics.
  void ReportUnit(const jobs::UnitResult& unit, const std::map<std::string, double>& extra);
  // Of the attempts before, as in v1::Launch: what they had done is done again, and coming up is recovery. Before the
  // first section.
  void SetHistory(bool follows_failure, int64_t reached_step);
  // Reports numbers that change within a unit. They stay the job's progress until others of their names come, and are
  // no part of its history.
  void ReportMoment(const std::map<std::string, double>& values);
  // Tells the step before the first unit.
  void SetStep(int64_t step, int64_t total_steps);

 private:
  v1::RunnerReport MakeReport() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What the cache has done since the last call.
  void AddCacheUse(std::map<std::string, double>* values) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Books the time since the last call to the section.
  void Book() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const jobs::JobPlace place_;
  StopFlag* const stop_;
  const ReportFunction report_;
  Clock* const clock_;
  comm::Communicator* data_ = nullptr;
  comm::Communicator* control_ = nullptr;
  jobs::Trials* trials_ = nullptr;
  cache::FileCache* cache_ = nullptr;

  Mutex mutex_;
  std::string section_ ABSL_GUARDED_BY(mutex_) = "prepare";
  int64_t step_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t total_steps_ ABSL_GUARDED_BY(mutex_) = 0;
  bool follows_failure_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t reached_step_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration booked_until_ ABSL_GUARDED_BY(mutex_);
  absl::Duration last_report_ ABSL_GUARDED_BY(mutex_);
  absl::Duration unit_seconds_ ABSL_GUARDED_BY(mutex_);  // in "train" since the last unit
  std::map<std::string, double> goodput_ ABSL_GUARDED_BY(mutex_);
  cache::FileCacheCounts cache_told_ ABSL_GUARDED_BY(mutex_);
};

// Goodput category (CP-70) of a section. Categories of an attempt that repeats an earlier one's work differ in two:
// what would be init is recovery if that one failed, and what would be productive is lost_progress in units that begin
// before the step that it had reached.
absl::string_view CategoryOf(absl::string_view section);

}  // namespace trainyard::runner
