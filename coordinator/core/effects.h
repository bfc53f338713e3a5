// What one input to the core leads to. The shell commits `writes` first, and only then sends `pushes`, publishes
// `events` and answers the caller; if the commit fails it drops all of it and rebuilds the core from the store.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "coordinator/core/record.pb.h"
#include "proto/v1/coordinator.pb.h"
#include "proto/v1/worker.pb.h"

namespace trainyard::coordinator {

// Both clocks when an input arrived: `wall` goes into records, `mono` decides leases, timeouts and back-off (I20).
struct Now {
  absl::Time wall;
  absl::Duration mono;
};

// Write: one of the following.
struct PutJob {
  JobRecord record;
};
struct DeleteJob {
  std::string uid;
};
struct OpenAttempt {
  std::string uid;
  int number = 0;
  uint64_t fence = 0;
};
struct CloseAttempt {
  std::string uid;
  int number = 0;
};
struct HoldSlot {
  std::string worker_id;
  int slot = 0;
  std::string uid;
  uint64_t fence = 0;
};
struct ReleaseSlot {
  std::string worker_id;
  int slot = 0;
  uint64_t fence = 0;
};
struct PutWorker {
  WorkerRecord record;
};
// Its slots must have been released before, or be in the same commit.
struct DeleteWorker {
  std::string worker_id;
};
struct PutRequest {
  RequestRecord record;
};
struct DeleteRequest {
  std::string name_space, request_id, method;
};
// The store keeps one point a step, that of the newest attempt, and thins long histories.
struct PutMetric {
  std::string uid;
  v1::MetricPoint point;
};
struct PutEvent {
  uint64_t revision = 0;
  std::shared_ptr<const v1::Job> job;
};
struct PutFence {
  uint64_t next_fence = 1;
};
// A generation is written once; it goes with its parent's DeleteJob.
struct PutGeneration {
  GenerationRecord record;
};
// Which job is the trial at (parent, generation, index): written once, in the same commit as the generation.
struct PutTrial {
  std::string parent_uid;
  int64_t generation = 0;
  int index = 0;
  std::string uid;
};

using Write = std::variant<PutJob, DeleteJob, OpenAttempt, CloseAttempt, HoldSlot, ReleaseSlot, PutWorker, DeleteWorker,
                           PutRequest, DeleteRequest, PutMetric, PutEvent, PutFence, PutGeneration, PutTrial>;

// A message for the worker that has the session.
struct Push {
  uint64_t session = 0;
  v1::CoordinatorMessage message;
};

// End the session's stream with `status`.
struct CloseSession {
  uint64_t session = 0;
  absl::Status status;
};

struct Transition {
  v1::JobState from, to;
  std::string reason;
};
struct AttemptEnd {
  v1::AttemptState state;
  v1::FailureClass failure_class;
};

// Phases of a recovery: they follow each other without gap or overlap, from the cause of a failure to the first new
// step. Those of one recovery are counted as they end; a phase that another failure or a user cuts short is not.
enum class RecoveryPhase {
  kDetect,     // from the cause (a rank's exit, the last sign of a lost worker) to the end of the attempt
  kStop,       // until no process of it is left that is worth waiting for
  kPlace,      // back-off and the wait for slots
  kStart,      // assigned, prepared, all ranks ready
  kFirstStep,  // until a step beyond the restored checkpoint was reported
};
struct RecoveryTime {
  RecoveryPhase phase;
  absl::Duration time;
};

// What came of trying jobs that lack nothing but slots, in placement passes.
struct Admissions {
  int placed = 0;
  int not_enough_slots = 0;  // the gang is larger than what is free
  int fragmented = 0;        // enough are free, but not as the gang may lie on workers
  int reserved = 0;          // the slots are kept for somebody who has waited longer
  int held = 0;              // a trial that its parent holds back
};

struct Effects {
  std::vector<Write> writes;
  std::vector<Push> pushes;
  std::vector<CloseSession> closes;
  std::vector<v1::ProgressEvent> progress;

  // For metrics.
  std::vector<Transition> transitions;
  std::vector<AttemptEnd> attempt_ends;
  std::vector<absl::Duration> queue_waits;
  std::vector<v1::JobState> trial_ends;
  std::vector<RecoveryTime> recovery_times;
  Admissions admissions;
  int generations = 0;  // committed for the first time
  int lease_expirations = 0;
  int invariant_violations = 0;
};

// All records of a store, as read when the coordinator starts.
struct Records {
  std::vector<JobRecord> jobs;
  std::vector<WorkerRecord> workers;
  std::vector<RequestRecord> requests;
  std::vector<GenerationRecord> generations;
  uint64_t next_fence = 1;
  uint64_t revision = 0;
  uint64_t leader_epoch = 1;
};

}  // namespace trainyard::coordinator
