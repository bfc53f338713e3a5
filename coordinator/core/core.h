// The coordinator's state machine. The same state, input and time give the same effects: there is no clock, thread,
// file or socket in here, and no randomness but what the caller passes in.
//
// Life of a job: QUEUED -> (Schedule places the gang) ADMITTED -> (all ranks ready) RUNNING -> SUCCEEDED. An attempt
// that fails is over at once; its peers are told to stop, the job is RECOVERING, and what follows (retry, back-off,
// FAILED) is decided when the tasks have exited, so that the true cause is known. Slots are freed only by their
// worker's report. control-plane.md gives the rules; the comments name them.
//
// Jobs ask for jobs (core_trials.cc): a generation of trials is committed whole, with uids that follow from who asked,
// and its outcomes are told to the asking attempt as long as it lives. Jobs wait for jobs (core_dependencies.cc): what
// a job needs of another is copied into its record when that one ends.
//
// Not safe for several threads. Inputs append to `effects`; see effects.h for what to do with them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/core/effects.h"
#include "coordinator/core/placement.h"
#include "coordinator/core/timing.h"
#include "proto/spec/job_options.h"

namespace trainyard::spec {
class FieldErrors;
}

namespace trainyard::coordinator {

struct SubmitResult {
  std::string uid;  // empty for validate_only
  bool deduplicated = false;
  v1::Job validated;  // set for validate_only: the job as it would be
};

struct SubmitBatchResult {
  std::vector<std::string> uids;  // as in the request; empty for validate_only
  bool deduplicated = false;
  std::vector<v1::Job> validated;  // set for validate_only
};

// What a decision about capacity rests on, for one slot type.
struct Capacity {
  int total = 0;
  int free = 0;
  int largest_free = 0;  // most free slots on one worker
};

class Core {
 public:
  Core(const Timing& timing, Records records, Now now);
  Core(Core&&) = default;
  Core& operator=(Core&&) = default;

  // Takes over what is not in the store (sessions, leases, progress) from the core that this one replaces after a
  // failed commit. The caller then repeats what the workers sent in that commit, so a registration that was not stored
  // happens again.
  void AdoptVolatile(const Core& old);

  // ---- users ----

  // `uid` becomes the job's if a new one is made. INVALID_ARGUMENT (bad spec, REQUEST_ID_REUSED), ALREADY_EXISTS.
  absl::StatusOr<SubmitResult> Submit(const v1::SubmitRequest& request, const std::string& uid, Now now,
                                      Effects* effects);
  // All jobs or none. `uids` are taken in ascending order, so that the jobs queue in the order of the request. As
  // Submit, with paths "jobs[2].name"; INVALID_ARGUMENT also for a cycle of dependencies.
  absl::StatusOr<SubmitBatchResult> SubmitBatch(const v1::SubmitBatchRequest& request, std::vector<std::string> uids,
                                                Now now, Effects* effects);
  // These return the job's uid. NOT_FOUND; FAILED_PRECONDITION if the job's state does not allow it.
  absl::StatusOr<std::string> Cancel(const v1::JobActionRequest& request, Now now, Effects* effects);
  absl::StatusOr<std::string> Suspend(const v1::JobActionRequest& request, Now now, Effects* effects);
  absl::StatusOr<std::string> Resume(const v1::JobActionRequest& request, Now now, Effects* effects);

  // ---- workers; `session` names one stream and is never used again ----

  // Answers with Registered; on an error the stream must end with it.
  absl::Status Register(uint64_t session, const v1::Register& message, Now now, Effects* effects);
  void Disconnect(uint64_t session);
  // `received` is when the message arrived, on the monotonic clock. False: the session is not the worker's any more.
  bool Heartbeat(uint64_t session, Now received);
  void Report(uint64_t session, const v1::TaskReport& report, Now now, Effects* effects);
  void Progress(uint64_t session, const v1::ProgressReport& report, Now now, Effects* effects);
  void CommitCheckpoint(uint64_t session, const v1::CommitCheckpoint& message, Now now, Effects* effects);
  // Commits the generation if it is new; answers with the outcomes that there are, or a refusal. Others follow as
  // trials end, until the session or the attempt does.
  void RunTrials(uint64_t session, const v1::RunTrials& message, Now now, Effects* effects);
  void SetSlotHealth(uint64_t session, const v1::SlotHealth& message, Now now, Effects* effects);
  // By an operator: the worker is gone for good. NOT_FOUND; FAILED_PRECONDITION (WORKER_NOT_LOST, WORKER_IN_USE).
  absl::Status ForgetWorker(const std::string& worker_id, Now now, Effects* effects);

  // ---- time ----

  // Leases, deadlines, retention. Call every 100 ms or so, after the inputs that arrived before `now`.
  void Tick(Now now, Effects* effects);
  // One placement pass. False: nothing changed since the last, so none was made.
  bool Schedule(Now now, Effects* effects);

  // ---- reads ----

  // NOT_FOUND. `job` is a uid, or a name, then the newest of that name.
  absl::StatusOr<std::string> Find(const std::string& name_space, const std::string& job) const;
  // With pending reason, place in the queue and progress filled in. The job must exist.
  v1::Job View(const std::string& uid, Now now) const { return View(uid, now, Capacities()); }
  // For many jobs in a row: counting slots is a walk over all workers.
  v1::Job View(const std::string& uid, Now now, const std::map<spec::SlotType, Capacity>& capacities) const;
  std::map<spec::SlotType, Capacity> Capacities() const;
  const JobRecord* Record(const std::string& uid) const;  // nullptr if there is none
  // Uids from newest to oldest submit.
  std::vector<std::string> Uids() const;
  // (submit time, uid): the order that List pages through.
  const std::set<std::pair<absl::Time, std::string>>& by_time() const { return by_time_; }
  // Uids of jobs that wait to be placed, in the order in which that is tried; at most `limit`.
  std::vector<std::string> Waiting(size_t limit) const;
  size_t waiting_count() const { return waiting_.size(); }
  // Uids of a generation's trials by index; nullptr if there is no such generation.
  const std::vector<std::string>* TrialsOf(const std::string& parent_uid, int64_t generation) const;
  v1::ListWorkersResponse Workers() const;
  // Live attempt and fence?
  bool IsLive(const v1::AttemptRef& ref) const;
  // A task of this attempt was placed on the session's worker: its logs are welcome, also after the end.
  bool MayLog(uint64_t session, const v1::AttemptRef& ref) const;

  uint64_t revision() const { return revision_; }
  uint64_t next_fence() const { return next_fence_; }
  uint64_t leader_epoch() const { return leader_epoch_; }
  // Number of jobs by (state, queue, kind).
  std::map<std::tuple<v1::JobState, std::string, std::string>, int> CountJobs() const;
  std::map<v1::PendingReason::Code, int> CountPending(Now now) const;

 private:
  struct Generation;
  struct JobEntry {
    JobRecord record;
    spec::JobOptions options;
    spec::WorldOptions gang;  // of the job itself: spec::GangOf(options)
    // Of a trial; both live as long as it does.
    const JobEntry* parent = nullptr;
    Generation* generation = nullptr;
    bool is_touched = false;  // is in changed_
    // All on the monotonic clock.
    absl::Duration queue_deadline_at = absl::InfiniteDuration();
    absl::Duration retry_at = -absl::InfiniteDuration();
    absl::Duration ready_deadline_at = absl::InfiniteDuration();  // prepare or barrier timeout while ADMITTED
    bool someone_is_ready = false;
    absl::Duration stop_begin = absl::ZeroDuration();
    absl::Duration stop_deadline_at = absl::InfiniteDuration();  // then the stop counts as done, slots stay held
    absl::Duration running_since = absl::ZeroDuration();
    absl::Duration waiting_since = absl::ZeroDuration();
    absl::Duration recovery_since = absl::ZeroDuration();  // when record.recovery() came to its phase
    std::optional<absl::Duration> first_step_at;           // of the recovery; not stored yet
    v1::JobProgress progress;

    v1::Job& job() { return *record.mutable_job(); }
    const v1::Job& job() const { return record.job(); }
    v1::JobState state() const { return record.job().state(); }
  };
  struct Generation {
    GenerationRecord record;
    std::vector<std::string> trials;  // uids by index
    int waiting = 0, running = 0, succeeded = 0, failed = 0;
    absl::Time last_end = absl::InfinitePast();
    // Who has been told all outcomes so far, and will be told the others.
    uint64_t session = 0;
    uint64_t fence = 0;

    bool has_ended() const { return waiting + running == 0; }
  };
  struct Holder {
    std::string uid;
    int attempt = 0;
    uint64_t fence = 0;
    int rank = 0;
    bool is_foreign = false;  // no record of ours holds it; known from the worker's own report
  };
  struct WorkerEntry {
    WorkerRecord record;
    uint64_t session = 0;  // 0: none
    v1::WorkerState state = v1::WORKER_STATE_DISCONNECTED;
    absl::Duration lease_ttl;
    absl::Duration lease_ends_at;
    absl::Time last_heartbeat = absl::InfinitePast();
    absl::Duration last_sign;    // the last heartbeat that this coordinator got, or its own start
    std::map<int, Holder> held;  // by slot
  };
  // Higher priority, then earlier submit, then uid (CP-39).
  using QueueKey = std::tuple<int, absl::Time, std::string>;

  // core.cc: records, states, events
  void Load(Records records, Now now);
  void IndexJob(const JobEntry& entry);
  void UnindexJob(const JobEntry& entry);
  QueueKey KeyOf(const JobEntry& entry) const;
  JobEntry& Touch(JobEntry& entry);
  void SetState(JobEntry& entry, v1::JobState to, absl::string_view reason, Now now, Effects* effects);
  // Ends an input: what follows from the ends of jobs in it, then records and events of all that changed.
  void Finish(Now now, Effects* effects);
  void FollowEnds(Now now, Effects* effects);
  void SetOptions(JobEntry& entry, spec::JobOptions options);
  JobEntry* FindEntry(const std::string& uid);
  const JobEntry* FindEntry(const std::string& uid) const;
  WorkerEntry* WorkerOf(uint64_t session);
  void DeleteFinished(Now now, Effects* effects);
  bool MayDelete(const JobEntry& entry) const;
  void DeleteEntry(const std::string& uid, Effects* effects);

  // core_submit.cc
  absl::StatusOr<std::optional<std::vector<std::string>>> CheckRequest(const std::string& name_space,
                                                                       const std::string& id, const std::string& method,
                                                                       const std::string& digest) const;
  void KeepRequest(const std::string& name_space, const std::string& id, const std::string& method,
                   const std::string& digest, const std::vector<std::string>& uids, Now now, Effects* effects);
  bool IsNameTaken(const std::string& name_space, const std::string& name) const;
  absl::Status CheckNameIsFree(const spec::JobOptions& options) const;
  std::unique_ptr<JobEntry> MakeEntry(const v1::JobSpec& spec, spec::JobOptions options, const std::string& uid,
                                      Now now) const;
  JobEntry& AddEntry(std::unique_ptr<JobEntry> entry, Now now, Effects* effects);

  // core_jobs.cc
  using Action = absl::Status (Core::*)(JobEntry&, Now, Effects*);
  absl::StatusOr<std::string> Act(const char* method, Action action, const v1::JobActionRequest& request, Now now,
                                  Effects* effects);
  absl::Status CancelEntry(JobEntry& entry, Now now, Effects* effects);
  void CancelBecause(JobEntry& entry, const std::string& message, Now now, Effects* effects);
  absl::Status SuspendEntry(JobEntry& entry, Now now, Effects* effects);
  absl::Status ResumeEntry(JobEntry& entry, Now now, Effects* effects);
  void EnterQueue(JobEntry& entry, Now now);

  // core_dependencies.cc; `siblings` are jobs of the same submit, by (namespace, name)
  using Siblings = std::map<std::pair<std::string, std::string>, std::string>;
  void ResolveDependencies(JobEntry& entry, const Siblings& siblings, spec::FieldErrors& errors) const;
  static bool WaitsForOthers(const JobEntry& entry);
  void WatchDependencies(const JobEntry& entry);
  void TellDependents(const JobEntry& ended, Now now, Effects* effects);
  void JudgeDependencies(JobEntry& entry, Now now, Effects* effects);
  std::string DependencyText(const JobEntry& entry) const;
  static void AddArtifacts(const JobEntry& entry, v1::Assign* assign);

  // core_trials.cc
  absl::StatusOr<Generation*> TakeGeneration(const WorkerEntry& worker, const v1::RunTrials& message, Now now,
                                             Effects* effects);
  absl::StatusOr<Generation*> MakeGeneration(JobEntry& parent, const v1::TrialGeneration& asked,
                                             const std::string& digest, Now now, Effects* effects);
  absl::StatusOr<std::vector<std::unique_ptr<JobEntry>>> MakeTrials(const JobEntry& parent,
                                                                    const v1::TrialGeneration& asked, Now now) const;
  void PushOutcomes(const Generation& generation, const std::vector<int>& indices, bool with_state, Effects* effects);
  void CancelTrials(const JobEntry& parent, Now now, Effects* effects);
  // May the trial not be placed, `placed` others of its generation being placed in the same pass?
  static bool IsHeld(const JobEntry& entry, int placed);
  static std::string HoldText(const JobEntry& entry);
  void CountTrial(const JobEntry& entry, int by) const;
  void AddGenerations(v1::Job* job) const;

  // core_attempts.cc, core_recovery.cc
  static v1::Attempt* LiveAttempt(JobEntry& entry);
  static const v1::Attempt* LiveAttempt(const JobEntry& entry);
  static TaskRecord* FindTask(JobEntry& entry, const std::string& worker_id, uint64_t fence);
  void CreateAttempt(JobEntry& entry, const std::vector<v1::RankPlace>& places, Now now, Effects* effects);
  void PushAssign(const JobEntry& entry, const TaskRecord& task, Effects* effects);
  void PushStart(const JobEntry& entry, const TaskRecord& task, Effects* effects);
  v1::StopTask StopMessage(const JobEntry& entry, const TaskRecord& task, Now now) const;
  void PushTo(const std::string& worker_id, v1::CoordinatorMessage message, Effects* effects);
  void ApplyReport(WorkerEntry& worker, const v1::TaskReport& report, Now now, Effects* effects);
  bool MergeReport(JobEntry& entry, TaskRecord& task, const v1::TaskReport& report, Now now);
  void ReleaseSlots(const JobEntry& entry, const TaskRecord& task, Effects* effects);
  void AdvanceAttempt(JobEntry& entry, Now now, Effects* effects);
  void BeginRunning(JobEntry& entry, v1::Attempt& attempt, Now now, Effects* effects);
  void Succeed(JobEntry& entry, Now now, Effects* effects);
  void StopTasks(JobEntry& entry, v1::StopReason reason, bool checkpoint, Now now, Effects* effects);
  void BeginStopping(JobEntry& entry, v1::StopReason reason, Now now, Effects* effects);
  void FailAttempt(JobEntry& entry, v1::AttemptState state, v1::ExitRecord exit, Now now, Effects* effects);
  void EndAttempt(JobEntry& entry, v1::AttemptState state, const v1::ExitRecord& exit, Now now, Effects* effects);
  void LoseTask(JobEntry& entry, TaskRecord& task, absl::string_view message, Now now, Effects* effects);
  void BeginRecovery(JobEntry& entry, const v1::ExitRecord& exit, Now now);
  void EnterRecoveryPhase(JobEntry& entry, RecoveryRecord::Phase phase, Now now);
  bool IsIn(const JobEntry& entry, RecoveryRecord::Phase phase) const {
    return entry.record.recovery().phase() == phase;
  }
  void NoteFirstStep(JobEntry& entry, Now now);
  void TakeFirstStep(JobEntry& entry, Effects* effects);
  bool HasUnsettledTasks(const JobEntry& entry, Now now) const;
  void Settle(JobEntry& entry, Now now, Effects* effects);
  void EndStopping(JobEntry& entry, Now now, Effects* effects);
  void DecideRetry(JobEntry& entry, Now now, Effects* effects);

  // core_workers.cc
  absl::Status AdmitWorker(const v1::Register& message) const;
  void Reconcile(WorkerEntry& worker, bool same_incarnation, const v1::Register& message, Now now, Effects* effects);
  v1::TaskDecision Decide(WorkerEntry& worker, const v1::TaskReport& report, Now now);
  void ExpireLeases(Now now, Effects* effects);
  v1::SlotState StateOf(const WorkerEntry& worker, const v1::WorkerSlot& slot) const;

  // core_schedule.cc
  std::vector<FreeWorker> FreeWorkers(spec::SlotType type) const;
  bool MayPlace(const JobEntry& entry, Now now) const;
  int QueuePosition(const JobEntry& entry) const;
  v1::PendingReason PendingOf(const JobEntry& entry, const std::map<spec::SlotType, Capacity>& capacities,
                              Now now) const;

  Timing timing_;
  uint64_t leader_epoch_ = 1;
  uint64_t next_fence_ = 1;
  uint64_t revision_ = 0;
  absl::Duration grace_ends_at_;
  absl::Duration last_tick_;
  absl::Duration next_retention_check_;
  absl::Time last_decision_ = absl::InfinitePast();
  bool schedule_is_due_ = true;

  std::map<std::string, std::unique_ptr<JobEntry>> jobs_;                      // by uid
  std::map<std::pair<std::string, std::string>, std::string> newest_by_name_;  // (namespace, name) -> uid
  std::set<std::pair<absl::Time, std::string>> by_time_;
  std::set<QueueKey> waiting_;  // QUEUED and RECOVERING
  std::map<std::string, std::set<QueueKey>> waiting_by_queue_;
  std::set<std::string> occupying_;  // ADMITTED, RUNNING, STOPPING
  std::map<std::string, WorkerEntry> workers_;
  std::map<uint64_t, std::string> sessions_;
  std::map<std::tuple<std::string, std::string, std::string>, RequestRecord> requests_;
  std::map<std::string, std::map<int64_t, Generation>> families_;  // parent's uid, number
  std::map<std::string, std::set<std::string>> dependents_;        // uid -> those that wait for its end
  std::set<std::string> first_steps_;                              // uids with a first_step_at
  std::vector<std::string> changed_;                               // uids touched by the input at work
  std::vector<std::string> ended_;                                 // uids whose jobs ended in the input at work
};

// Milliseconds-free texts for messages: "12 s", "1.5 s".
std::string Text(absl::Duration duration);

}  // namespace trainyard::coordinator
