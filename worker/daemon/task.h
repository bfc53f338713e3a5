// The part of one attempt that runs on this worker: a state machine that is told what happened and says what to do.
// Pure: no process, socket, file or clock; `now` is monotonic time, `wall` is for records.
//
//   ASSIGNED -> PREPARING -> READY -> RUNNING -> (STOPPING ->) EXITED | UNKNOWN        one state a rank; the task has
//                                                                                      the least advanced one
// Stop order (CP-29), for a grace g:
//   with checkpoint     at 0: StopRunner{checkpoint}; at 0.75 g: SIGTERM (leave as you are); at g: SIGKILL of the group
//   without             at 0: StopRunner and SIGTERM; at min(g, 3 s): SIGKILL of the group
//   then wait until the group is empty -> EXITED; not empty 60 s after SIGKILL -> UNKNOWN, slot unhealthy.
// When one rank ends badly, the others on this worker are stopped at once (CP-30); the coordinator does the same for
// those elsewhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/v1/worker.pb.h"
#include "worker/daemon/exit_class.h"
#include "worker/daemon/hang_watchdog.h"

namespace trainyard::daemon {

struct TaskOptions {
  std::string worker_id = "";
  std::string host_address = "";
  absl::Duration quick_grace = absl::Seconds(3);
  absl::Duration kill_timeout = absl::Seconds(60);
  HangOptions hang = {};  // the spec's, filled in by the caller
};

struct TaskAction {
  enum class Kind { kSend, kTerminate, kKill };
  Kind kind = Kind::kSend;
  int rank = 0;
  v1::RunnerCommand command;  // kSend
};

class Task {
 public:
  Task(v1::Assign assign, TaskOptions options, absl::Duration now);
  // One that an earlier daemon left behind, as its record on disk tells: all its ranks are over.
  Task(v1::TaskReport record, TaskOptions options, absl::Time wall);

  // From supervision. `rank` is one of the assignment's.
  void Spawned(int rank);
  // INFRA, whatever `status` says; `reason` is an enumeration for people and metrics.
  void SpawnFailed(int rank, const absl::Status& status, absl::Time wall, absl::Duration now,
                   const char* reason = "SPAWN_FAILED");
  // It was not started, because the task is stopping. Only after a stop, and not after Spawned.
  void NotStarted(int rank, absl::Time wall);
  // The rank's first process has ended; others of its group may live.
  void Ended(int rank, const ProcessEnd& end, std::vector<std::string> last_log_lines, absl::Time wall,
             absl::Duration now);
  // No process of the rank's group is left. What it held may not be free yet.
  void Emptied(int rank);
  // The same, and its slot may be used again.
  void Gone(int rank);
  // The rank's device is broken: that is why it ended, or ends now, whatever the rank says of it, unless it has done
  // its work or was asked to stop before. INFRA. Said twice of a rank, the first account stays.
  void DeviceFailed(int rank, const char* reason, std::string message, absl::Time wall, absl::Duration now);

  // From the runner.
  void Ready(int rank, const v1::RankReady& ready);
  void Progress(int rank, const v1::RankProgress& progress, absl::Duration now);
  void Failure(int rank, const v1::RankFailure& failure, absl::Time wall);
  void Result(int rank, const v1::JobResult& result);

  // From the coordinator, or the daemon itself. Both may come again and then change nothing, except that a stop with a
  // shorter time or without checkpoint tightens the one under way.
  void Start(const v1::StartTraining& start, absl::Duration now);
  void Stop(v1::StopReason reason, bool checkpoint, absl::Duration grace, absl::Duration now);

  // Timeouts: prepare, hang, stop, kill.
  void Tick(absl::Time wall, absl::Duration now);

  std::vector<TaskAction> TakeActions();

  const v1::AttemptRef& ref() const { return report_.ref(); }
  const v1::Assign& assign() const { return assign_; }
  // With its sequence, which grows with each change.
  const v1::TaskReport& report() const { return report_; }
  v1::TaskState state() const { return report_.state(); }
  bool finished() const { return state() == v1::TASK_STATE_EXITED; }
  // Slots whose processes could not be killed.
  std::vector<int> stuck_slots() const;
  bool is_stopping() const { return stop_reason_.has_value(); }
  v1::StopReason stop_reason() const { return stop_reason_.value_or(v1::STOP_REASON_UNSPECIFIED); }
  // A rank's watchdog, for metrics and messages.
  const HangWatchdog& watchdog(int rank) const;

 private:
  struct Rank {
    explicit Rank(const HangOptions& hang) : watchdog(hang) {}
    HangWatchdog watchdog;
    bool has_process = false;  // spawned and its group not yet known to be empty
    bool has_result = false;
    bool asked_to_stop = false;
    bool terminated = false;
    bool device_failed = false;
    bool killed = false;
    std::optional<v1::RankFailure> failure;
    absl::Time failure_time;
    absl::Duration kill_time;
  };

  v1::RankStatus* status(int rank) { return report_.mutable_ranks(IndexOf(rank)); }
  Rank& state_of(int rank) { return ranks_[static_cast<size_t>(IndexOf(rank))]; }
  int IndexOf(int rank) const;
  void SetState(int rank, v1::TaskState state);
  void Changed();
  void SetExit(int rank, v1::ExitRecord record, absl::Time wall);
  // A failure that the daemon itself found: named first, so that the later death does not hide it.
  void FailRank(int rank, const char* reason, std::string message, absl::Time wall, absl::Duration now);
  void Kill(int rank, absl::Duration now);

  const v1::Assign assign_;
  const TaskOptions options_;
  const absl::Duration begin_;
  std::vector<Rank> ranks_;
  v1::TaskReport report_;
  std::vector<TaskAction> actions_;
  bool started_ = false;
  std::optional<v1::StopReason> stop_reason_;
  bool stop_checkpoint_ = false;
  absl::Duration terminate_time_ = absl::InfiniteDuration();
  absl::Duration stop_kill_time_ = absl::InfiniteDuration();
};

// "uid/attempt" for messages and file names.
std::string TaskName(const v1::AttemptRef& ref);

}  // namespace trainyard::daemon
