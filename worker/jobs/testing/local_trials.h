// Trials without a service: each runs in this process, its ranks on threads. For tests of kinds that ask for trials,
// and for measuring them.
//
// As the coordinator does, it writes a generation down before it runs any of it, and each outcome when it is there: a
// second LocalTrials over the same folder hands out what the first one left and runs the rest.
//
//   base_dir/generation-<n>/generation.pb     the TrialGeneration as it was asked for
//   base_dir/generation-<n>/trial-<i>/        attempt_dir of a trial
//   base_dir/generation-<n>/outcome-<i>.pb    its TrialOutcome
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "proto/spec/job_options.h"
#include "worker/cache/file_cache.h"
#include "worker/jobs/job.h"
#include "worker/jobs/trials.h"

namespace trainyard::jobs {

struct LocalTrialsOptions {
  std::string base_dir;         // absolute; made if it is not there
  std::string data_root = "/";  // where relative paths of the specs start
  int parallel = 1;             // trials at a time; a generation's max_parallel may lower it
  // A trial without a seed gets one that follows from this, its generation and its place.
  uint64_t seed = 1;
  // MakeJob, or a test's own.
  std::function<std::unique_ptr<Job>(const spec::JobOptions&)> make_job = nullptr;
  // Of the trials' contexts; borrowed.
  cache::FileCache* file_cache = nullptr;
  // The parent's ShouldStop; empty: never. Once true, no further trial starts and Run returns Cancelled.
  std::function<bool()> should_stop = nullptr;
};

// Not thread-safe, as Trials. Equal requests give equal outcomes for any `parallel`.
class LocalTrials final : public Trials {
 public:
  explicit LocalTrials(LocalTrialsOptions options);

  // InvalidArgument also for a trial that would ask for trials itself.
  absl::StatusOr<std::vector<v1::TrialOutcome>> Run(
      const v1::TrialGeneration& generation, const std::function<void(const v1::TrialOutcome&)>& on_outcome) override;

  // Trials that were really run, by this object: tests of recovery count them.
  int run_count() const { return run_count_; }

 private:
  absl::Status Commit(const v1::TrialGeneration& generation, const std::string& folder) const;
  absl::StatusOr<v1::TrialOutcome> RunOne(const v1::TrialGeneration& generation, int index,
                                          const std::string& folder) const;

  const LocalTrialsOptions options_;
  int run_count_ = 0;
};

}  // namespace trainyard::jobs
