#include "worker/jobs/testing/local_trials.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "proto/spec/references.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/runner/fault.h"
#include "worker/runner/rank_context.h"
#include "worker/runner/stop_flag.h"

namespace trainyard::jobs {
namespace {

// A rank's whole life, without checkpoints.
absl::StatusOr<v1::JobResult> RunRank(Job& job, JobContext& context, const spec::JobOptions& options) {
  TY_RETURN_IF_ERROR(job.Prepare(context));
  TY_RETURN_IF_ERROR(job.Initialize());
  while (job.step() < spec::TotalSteps(options)) {
    context.EnterSection("train");
    TY_ASSIGN_OR_RETURN(const UnitResult unit, job.RunUnit());
    if (unit.done) break;
  }
  context.EnterSection("export");
  return job.Finish();
}

std::string OutcomePath(const std::string& folder, int index) {
  return JoinPath(folder, absl::StrCat("outcome-", index, ".pb"));
}

// The specs in order; what may differ between two requests for one number is no part of it.
std::string DigestOfSpecs(const v1::TrialGeneration& generation) {
  std::string digests;
  for (const v1::JobSpec& spec : generation.specs()) absl::StrAppend(&digests, spec::RequestDigest(spec));
  return DigestOf(digests);
}

// Outcomes on their way to the thread that called Run.
struct Arrivals {
  Mutex mutex;
  CondVar changed;
  std::deque<absl::StatusOr<v1::TrialOutcome>> outcomes ABSL_GUARDED_BY(mutex);
  int running ABSL_GUARDED_BY(mutex) = 0;
};

}  // namespace

LocalTrials::LocalTrials(LocalTrialsOptions options) : options_(std::move(options)) {
  TY_CHECK(options_.make_job != nullptr);
  TY_CHECK(options_.parallel >= 1);
}

absl::Status LocalTrials::Commit(const v1::TrialGeneration& generation, const std::string& folder) const {
  if (generation.number() < 1) {
    return absl::InvalidArgumentError(absl::StrCat("generation number ", generation.number(), ", less than 1"));
  }
  const std::string path = JoinPath(folder, "generation.pb");
  if (FileExists(path)) {
    v1::TrialGeneration committed;
    TY_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
    if (!committed.ParseFromString(content)) return absl::DataLossError(absl::StrCat(path, " is not a generation"));
    if (DigestOfSpecs(committed) == DigestOfSpecs(generation)) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat("generation ", generation.number(),
                                                      " was committed with other trials (", committed.specs_size(),
                                                      ", now ", generation.specs_size(), ")"));
  }
  for (int i = 0; i < generation.specs_size(); ++i) {
    const absl::StatusOr<spec::JobOptions> options = spec::ParseJob(generation.specs(i));
    if (!options.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("specs[", i, "]: ", options.status().message()));
    }
    if (spec::IsDriver(options->kind)) {
      return absl::InvalidArgumentError(
          absl::StrCat("specs[", i, "]: a trial cannot be of a kind that asks for trials"));
    }
  }
  TY_RETURN_IF_ERROR(MakeDirs(folder));
  return WriteFileAtomic(path, generation.SerializeAsString());
}

absl::StatusOr<v1::TrialOutcome> LocalTrials::RunOne(const v1::TrialGeneration& generation, int index,
                                                     const std::string& folder) const {
  v1::JobSpec spec = generation.specs(index);
  const std::string uid = absl::StrCat("trial-", generation.number(), "-", index);
  if (spec.name().empty()) spec.set_name(uid);
  if (!spec.has_seed()) {
    const std::string key = DigestOf(absl::StrCat(options_.seed, "/", generation.number(), "/", index));
    spec.set_seed(std::stoull(key.substr(0, 8), nullptr, 16));
  }
  TY_ASSIGN_OR_RETURN(const spec::JobOptions options, spec::ParseJob(spec));
  const int ranks = spec::GangOf(options).max;
  JobPlace place;
  place.world_size = ranks;
  place.job_uid = uid;
  place.attempt_dir = JoinPath(folder, absl::StrCat("trial-", index));
  place.data_root = options_.data_root;
  place.spec = spec;
  // What one that was killed in the middle has left.
  TY_RETURN_IF_ERROR(RemoveTree(place.attempt_dir));
  TY_RETURN_IF_ERROR(MakeDirs(place.attempt_dir));

  const auto data = comm::MakeLocalCommunicators(ranks);
  const auto control = comm::MakeLocalCommunicators(ranks);
  runner::StopFlag stop;
  std::vector<absl::StatusOr<v1::JobResult>> results(static_cast<size_t>(ranks), absl::UnknownError("not run"));
  Mutex first_mutex;
  absl::Status first;  // the failure that the others followed
  const auto run_rank = [&](int rank) {
    const size_t i = static_cast<size_t>(rank);
    JobPlace mine = place;
    mine.rank = mine.local_rank = rank;
    runner::RankContext context(
        std::move(mine), &stop, [](const v1::RunnerReport&) {}, RealClock());
    context.Connected(data[i].get(), control[i].get());
    context.OfferCache(options_.file_cache);
    const std::unique_ptr<Job> job = options_.make_job(options);
    const absl::Status resolved = spec::CheckResolved(options);
    if (job == nullptr) {
      results[i] = absl::UnimplementedError(absl::StrCat("no job of kind ", spec::KindName(spec)));
    } else if (!resolved.ok()) {
      results[i] = resolved;
    } else {
      results[i] = RunRank(*job, context, options);
    }
    if (results[i].ok()) return;
    {
      MutexLock lock(&first_mutex);
      if (first.ok()) first = results[i].status();
    }
    data[i]->Abort();
    control[i]->Abort();
  };
  std::vector<std::thread> threads;
  for (int rank = 1; rank < ranks; ++rank) threads.emplace_back(run_rank, rank);
  run_rank(0);
  for (std::thread& thread : threads) thread.join();

  v1::TrialOutcome outcome;
  outcome.set_index(index);
  outcome.set_job_uid(uid);
  if (first.ok()) {
    outcome.set_state(v1::JOB_STATE_SUCCEEDED);
    *outcome.mutable_result() = *std::move(results[0]);
    outcome.mutable_exit()->set_reason("COMPLETED");
  } else {
    const runner::Fault fault = runner::FaultOf(first, "trial");
    outcome.set_state(v1::JOB_STATE_FAILED);
    outcome.mutable_exit()->set_failure_class(fault.failure.failure_class());
    outcome.mutable_exit()->set_reason(fault.failure.reason());
    outcome.mutable_exit()->set_message(fault.failure.message());
    outcome.mutable_exit()->set_exit_code(fault.exit_code);
  }
  TY_RETURN_IF_ERROR(WriteFileAtomic(OutcomePath(folder, index), outcome.SerializeAsString()));
  return outcome;
}

absl::StatusOr<std::vector<v1::TrialOutcome>> LocalTrials::Run(
    const v1::TrialGeneration& generation, const std::function<void(const v1::TrialOutcome&)>& on_outcome) {
  const std::string folder = JoinPath(options_.base_dir, absl::StrCat("generation-", generation.number()));
  TY_RETURN_IF_ERROR(Commit(generation, folder));

  std::vector<v1::TrialOutcome> outcomes(static_cast<size_t>(generation.specs_size()));
  const auto accept = [&](v1::TrialOutcome outcome) {
    if (on_outcome) on_outcome(outcome);
    outcomes[static_cast<size_t>(outcome.index())] = std::move(outcome);
  };
  std::vector<int> open;
  for (int i = 0; i < generation.specs_size(); ++i) {
    const std::string path = OutcomePath(folder, i);
    if (!FileExists(path)) {
      open.push_back(i);
      continue;
    }
    v1::TrialOutcome outcome;
    TY_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
    if (!outcome.ParseFromString(content) || outcome.index() != i) {
      return absl::DataLossError(absl::StrCat(path, " is not the outcome of trial ", i));
    }
    accept(std::move(outcome));
  }

  int parallel = std::min(options_.parallel, static_cast<int>(open.size()));
  if (generation.max_parallel() > 0) parallel = std::min(parallel, generation.max_parallel());
  Arrivals arrivals;
  std::atomic<size_t> next{0};
  std::atomic<bool> is_stopping{false};
  std::vector<std::thread> threads;
  {
    MutexLock lock(&arrivals.mutex);
    arrivals.running = parallel;
  }
  for (int t = 0; t < parallel; ++t) {
    threads.emplace_back([&] {
      for (size_t i = next++; i < open.size() && !is_stopping; i = next++) {
        absl::StatusOr<v1::TrialOutcome> outcome = RunOne(generation, open[i], folder);
        MutexLock lock(&arrivals.mutex);
        arrivals.outcomes.push_back(std::move(outcome));
        arrivals.changed.NotifyAll();
      }
      MutexLock lock(&arrivals.mutex);
      --arrivals.running;
      arrivals.changed.NotifyAll();
    });
  }
  absl::Status status;
  while (true) {
    std::deque<absl::StatusOr<v1::TrialOutcome>> arrived;
    bool is_over = false;
    {
      MutexLock lock(&arrivals.mutex);
      if (arrivals.outcomes.empty() && arrivals.running > 0) {
        arrivals.changed.WaitFor(&arrivals.mutex, absl::Milliseconds(50));
      }
      arrived.swap(arrivals.outcomes);
      is_over = arrivals.running == 0;
    }
    for (absl::StatusOr<v1::TrialOutcome>& outcome : arrived) {
      ++run_count_;
      if (outcome.ok()) {
        accept(*std::move(outcome));
      } else {
        status.Update(outcome.status());
      }
    }
    if (options_.should_stop && options_.should_stop()) {
      status.Update(absl::CancelledError("stopped while trials ran"));
    }
    if (!status.ok()) is_stopping = true;
    if (is_over && arrived.empty()) break;
  }
  for (std::thread& thread : threads) thread.join();
  TY_RETURN_IF_ERROR(status);
  return outcomes;
}

}  // namespace trainyard::jobs
