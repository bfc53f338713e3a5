// One job kind, as the runner's loop sees it. The runner owns the loop, the reports, the checkpoints and the stop;
// a kind owns what happens between two step boundaries.
//
// Order of calls, all on one thread, on every rank of the attempt alike:
//
//   Prepare -> Initialize or Restore (the last call wins) -> [ranks connect] -> RunUnit ... -> Finish
//                                                              Save between two units
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/v1/job.pb.h"
#include "worker/jobs/trials.h"

namespace trainyard::cache {
class FileCache;
}
namespace trainyard::comm {
class Communicator;
}
namespace trainyard::ckpt {
class CheckpointReader;
class CheckpointWriter;
}  // namespace trainyard::ckpt

namespace trainyard::jobs {

// Where this rank runs: fixed for the life of the process.
struct JobPlace {
  int rank = 0;
  int world_size = 1;
  int local_rank = 0;
  std::string job_uid;
  int attempt = 1;
  uint64_t fence = 0;
  std::string attempt_dir;  // absolute; only this attempt writes here; exists
  std::string data_root;    // relative paths of the spec start here
  v1::JobSpec spec;         // for records (exported config, manifest); numbers come from the typed options
};

// What a job may ask of the runner. All calls are for the job's thread, except that ShouldStop may come from any.
class JobContext {
 public:
  virtual ~JobContext() = default;

  virtual const JobPlace& place() const = 0;

  // The communicator for gradients and other tensors: from the first RunUnit to the end of Finish, null before. With
  // one rank there is one too. The job may hand it to a communication thread of its own.
  virtual comm::Communicator* communicator() = 0;

  // True once this rank is asked to stop. Poll it in every loop that can be long (CP-31); in sections other than
  // "train" the polls also tell the hang watchdog that the rank is alive. It can differ between ranks at one moment: a
  // loop with collectives inside must use AgreeToStop instead.
  virtual bool ShouldStop() = 0;

  // A collective: true on all ranks if ShouldStop() on any. All ranks call it at the same place. From the first RunUnit
  // on.
  virtual absl::StatusOr<bool> AgreeToStop() = 0;

  // The way to ask for trials: on rank 0 of the kinds that do (spec::IsDriver), from the first RunUnit to the end of
  // Finish; null elsewhere.
  virtual Trials* trials() { return nullptr; }

  // Copies on this host of files that others have made and whose digests are known; null: there is none. What a job
  // gives may not depend on it.
  virtual cache::FileCache* file_cache() { return nullptr; }

  // Names what the rank does now: "prepare", "train", "evaluate", "export", ... Wall time is booked to it, and users
  // and the watchdog see it. RunUnit starts in "train".
  virtual void EnterSection(absl::string_view section) = 0;
};

// One unit: an optimizer step and what hangs on it (evaluation, alarms).
struct UnitResult {
  int64_t step = 0;  // steps done so far
  int64_t total_steps = 0;
  bool done = false;
  // Numbers of this step, for history and dashboards: loss, grad_norm, learning_rate, tokens (of all ranks in this
  // step), step_seconds is added by the runner. Names: docs of the kind.
  std::map<std::string, double> metrics;
};

// Errors say whose fault it is, and so what happens to the attempt: InvalidArgument and NotFound: the spec or its data,
// permanent. FailedPrecondition, OutOfRange, ResourceExhausted and others: the user's (NaN policy, out of memory).
// Unavailable, Aborted, DeadlineExceeded and DataLoss: infrastructure, retried. Cancelled: broke off because
// ShouldStop() was true.
class Job {
 public:
  virtual ~Job() = default;

  // Opens data and model, allocates and plans all memory. No communicator yet. `context` outlives the job.
  virtual absl::Status Prepare(JobContext& context) = 0;

  // Bytes by purpose; after Prepare.
  virtual std::map<std::string, int64_t> MemoryPlan() const = 0;

  // Sets the whole state to that of step 0.
  virtual absl::Status Initialize() = 0;

  // Sets the whole state from a checkpoint of the same world size. Afterwards step() is the checkpoint's.
  virtual absl::Status Restore(ckpt::CheckpointReader& reader) = 0;

  // Names this rank's state to the writer, which copies it when this has returned. Same names, shapes and dtypes each
  // time.
  virtual absl::Status Save(ckpt::CheckpointWriter& writer) = 0;

  // Steps done so far.
  virtual int64_t step() const = 0;

  // Makes one step. If ShouldStop() is seen inside,
  // either end the step as usual (an evaluation may be cut short) or return Cancelled from a place that left the state
  // as it was before the unit.
  virtual absl::StatusOr<UnitResult> RunUnit() = 0;

  // After a unit said `done`, or at once when the restored checkpoint is of the last step: exports, samples. All ranks
  // call it; rank 0's result is the job's.
  virtual absl::StatusOr<v1::JobResult> Finish() = 0;
};

}  // namespace trainyard::jobs
