#include "worker/daemon/task.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "worker/daemon/proto_time.h"

namespace trainyard::daemon {
namespace {

bool IsOver(v1::TaskState state) {
  return state == v1::TASK_STATE_EXITED;
}

}  // namespace

std::string TaskName(const v1::AttemptRef& ref) {
  return absl::StrCat(ref.job_uid(), "/", ref.attempt());
}

Task::Task(v1::Assign assign, TaskOptions options, absl::Duration now)
    : assign_(std::move(assign)), options_(std::move(options)), begin_(now) {
  *report_.mutable_ref() = assign_.ref();
  report_.set_host_address(options_.host_address);
  report_.set_state(v1::TASK_STATE_ASSIGNED);
  report_.set_sequence(1);
  for (const v1::RankAssignment& rank : assign_.ranks()) {
    v1::RankStatus* status = report_.add_ranks();
    status->set_rank(rank.rank());
    status->set_slot(rank.slot());
    status->set_state(v1::TASK_STATE_ASSIGNED);
    ranks_.emplace_back(options_.hang);
  }
}

Task::Task(v1::TaskReport record, TaskOptions options, absl::Time wall)
    : options_(std::move(options)), begin_(absl::ZeroDuration()), report_(std::move(record)) {
  report_.set_host_address(options_.host_address);
  for (v1::RankStatus& status : *report_.mutable_ranks()) {
    ranks_.emplace_back(options_.hang);
    if (IsOver(status.state())) continue;
    v1::ExitRecord exit;
    exit.set_failure_class(v1::FAILURE_CLASS_INFRA);
    exit.set_reason("DAEMON_RESTARTED");
    exit.set_message("the worker daemon ended while the rank ran, and took the rank with it");
    SetExit(status.rank(), std::move(exit), wall);
    status.set_state(v1::TASK_STATE_EXITED);
  }
  report_.set_state(v1::TASK_STATE_EXITED);
  Changed();
}

int Task::IndexOf(int rank) const {
  for (int i = 0; i < report_.ranks_size(); ++i) {
    if (report_.ranks(i).rank() == rank) return i;
  }
  TY_CHECK(false);
}

const HangWatchdog& Task::watchdog(int rank) const {
  return ranks_[static_cast<size_t>(IndexOf(rank))].watchdog;
}

void Task::Changed() {
  report_.set_sequence(report_.sequence() + 1);
  v1::TaskState least = v1::TASK_STATE_UNKNOWN;
  bool is_unknown = false;
  for (const v1::RankStatus& status : report_.ranks()) {
    is_unknown |= status.state() == v1::TASK_STATE_UNKNOWN;
    least = std::min(least, status.state());
  }
  // A rank that cannot be killed is never hidden behind one that still ends.
  report_.set_state(is_unknown ? v1::TASK_STATE_UNKNOWN : least);
}

void Task::SetState(int rank, v1::TaskState state) {
  if (status(rank)->state() == state) return;
  status(rank)->set_state(state);
  Changed();
}

void Task::SetExit(int rank, v1::ExitRecord record, absl::Time wall) {
  record.set_rank(rank);
  record.set_worker_id(options_.worker_id);
  const Rank& state = state_of(rank);
  // The cause is as old as the first word of it, not as the death (CP-34: the earliest failure is the root cause).
  SetProto(record.mutable_time(), state.failure ? state.failure_time : wall);
  *status(rank)->mutable_exit() = std::move(record);
}

void Task::Spawned(int rank) {
  state_of(rank).has_process = true;
  SetState(rank, stop_reason_ ? v1::TASK_STATE_STOPPING : v1::TASK_STATE_PREPARING);
}

void Task::NotStarted(int rank, absl::Time wall) {
  TY_CHECK(stop_reason_.has_value());
  const Rank& state = state_of(rank);
  EndContext context{.has_result = false, .failure = state.failure, .stop = stop_reason_};
  SetExit(rank, ClassifyEnd({}, context), wall);
  SetState(rank, v1::TASK_STATE_EXITED);
}

void Task::SpawnFailed(int rank, const absl::Status& spawn_status, absl::Time wall, absl::Duration now,
                       const char* reason) {
  v1::ExitRecord exit;
  exit.set_failure_class(v1::FAILURE_CLASS_INFRA);
  exit.set_reason(reason);
  exit.set_message(spawn_status.ToString());
  SetExit(rank, std::move(exit), wall);
  SetState(rank, v1::TASK_STATE_EXITED);
  if (!stop_reason_) Stop(v1::STOP_REASON_PEER_FAILED, false, options_.quick_grace, now);
}

void Task::Ended(int rank, const ProcessEnd& end, std::vector<std::string> last_log_lines, absl::Time wall,
                 absl::Duration now) {
  Rank& state = state_of(rank);
  EndContext context{.has_result = state.has_result, .failure = state.failure, .stop = std::nullopt};
  if (state.asked_to_stop) context.stop = stop_reason_;
  v1::ExitRecord record = ClassifyEnd(end, context);
  const bool is_good = record.reason() == "COMPLETED";
  const bool is_control = record.failure_class() == v1::FAILURE_CLASS_CONTROL;
  if (!is_good) {
    for (std::string& line : last_log_lines) *record.add_last_log_lines() = std::move(line);
  }
  SetExit(rank, std::move(record), wall);
  status(rank)->set_succeeded(is_good);
  Changed();
  if (!is_good && !is_control && !stop_reason_) {
    Stop(v1::STOP_REASON_PEER_FAILED, false, options_.quick_grace, now);
  }
}

void Task::Emptied(int rank) {
  state_of(rank).has_process = false;
}

void Task::Gone(int rank) {
  state_of(rank).has_process = false;
  SetState(rank, v1::TASK_STATE_EXITED);
}

void Task::DeviceFailed(int rank, const char* reason, std::string message, absl::Time wall, absl::Duration now) {
  const bool was_asked = stop_reason_ && *stop_reason_ != v1::STOP_REASON_PEER_FAILED;
  Rank& state = state_of(rank);
  if (IsOver(status(rank)->state()) || was_asked || state.device_failed) return;
  state.device_failed = true;
  if (status(rank)->has_exit()) {
    v1::ExitRecord* exit = status(rank)->mutable_exit();
    if (exit->reason() == "COMPLETED") return;
    exit->set_failure_class(v1::FAILURE_CLASS_INFRA);
    exit->set_reason(reason);
    exit->set_message(absl::StrCat(message, "; the rank's end: ", exit->message()));
    Changed();
    return;
  }
  if (state.failure) absl::StrAppend(&message, "; the rank said: ", state.failure->message());
  // The first account keeps its time: it was the first sign of this.
  if (!state.failure) state.failure_time = wall;
  state.failure.emplace();
  state.failure->set_failure_class(v1::FAILURE_CLASS_INFRA);
  state.failure->set_reason(reason);
  state.failure->set_message(std::move(message));
  Stop(v1::STOP_REASON_PEER_FAILED, false, options_.quick_grace, now);
}

void Task::Ready(int rank, const v1::RankReady& ready) {
  status(rank)->set_comm_address(ready.comm_address());
  status(rank)->set_restored_step(ready.restored_step());
  if (status(rank)->state() == v1::TASK_STATE_PREPARING) SetState(rank, v1::TASK_STATE_READY);
}

void Task::Progress(int rank, const v1::RankProgress& progress, absl::Duration now) {
  state_of(rank).watchdog.Progress(progress.step(), progress.section(), now);
}

void Task::Failure(int rank, const v1::RankFailure& failure, absl::Time wall) {
  Rank& state = state_of(rank);
  // After a stop, "my peer has gone" is what everybody says; the first account stays.
  if (state.failure || state.asked_to_stop) return;
  state.failure = failure;
  state.failure_time = wall;
}

void Task::Result(int rank, const v1::JobResult& result) {
  state_of(rank).has_result = true;
  if (rank == 0) {
    *report_.mutable_result() = result;
    Changed();
  }
}

void Task::Start(const v1::StartTraining& start, absl::Duration now) {
  if (started_ || stop_reason_) return;
  for (const v1::RankStatus& status : report_.ranks()) {
    if (status.state() != v1::TASK_STATE_READY) return;  // the coordinator repeats a start that came too early
  }
  started_ = true;
  for (int i = 0; i < report_.ranks_size(); ++i) {
    const int rank = report_.ranks(i).rank();
    TaskAction action{.kind = TaskAction::Kind::kSend, .rank = rank, .command = {}};
    *action.command.mutable_start() = start;
    actions_.push_back(std::move(action));
    state_of(rank).watchdog.Start(report_.ranks(i).restored_step(), now);
    SetState(rank, v1::TASK_STATE_RUNNING);
  }
}

void Task::Stop(v1::StopReason reason, bool checkpoint, absl::Duration grace, absl::Duration now) {
  // Nothing to save before the first step, and nobody to agree with.
  checkpoint = checkpoint && started_;
  const bool is_new = !stop_reason_;
  const bool tightens = !is_new && stop_checkpoint_ && !checkpoint;
  grace = std::max(grace, absl::ZeroDuration());
  const absl::Duration kill_time = now + (checkpoint ? grace : std::min(grace, options_.quick_grace));
  const absl::Duration terminate_time = checkpoint ? now + 0.75 * grace : now;
  stop_kill_time_ = std::min(stop_kill_time_, kill_time);
  terminate_time_ = std::min(terminate_time_, terminate_time);
  if (is_new || reason == v1::STOP_REASON_CANCEL) stop_reason_ = reason;
  if (!is_new && !tightens) return;
  stop_checkpoint_ = checkpoint;
  for (int i = 0; i < report_.ranks_size(); ++i) {
    const int rank = report_.ranks(i).rank();
    Rank& state = state_of(rank);
    // One whose end is already known keeps its own cause.
    if (IsOver(report_.ranks(i).state()) || report_.ranks(i).has_exit()) continue;
    state.asked_to_stop = true;
    TaskAction action{.kind = TaskAction::Kind::kSend, .rank = rank, .command = {}};
    v1::StopRunner* stop = action.command.mutable_stop();
    stop->set_reason(*stop_reason_);
    stop->set_checkpoint(checkpoint);
    const absl::Duration left = std::max(terminate_time_ - now, absl::ZeroDuration());
    SetProto(stop->mutable_deadline(), left);
    actions_.push_back(std::move(action));
    if (report_.ranks(i).state() != v1::TASK_STATE_UNKNOWN) SetState(rank, v1::TASK_STATE_STOPPING);
  }
}

void Task::Kill(int rank, absl::Duration now) {
  Rank& state = state_of(rank);
  if (state.killed) return;
  state.killed = true;
  state.kill_time = now;
  actions_.push_back({.kind = TaskAction::Kind::kKill, .rank = rank, .command = {}});
}

void Task::FailRank(int rank, const char* reason, std::string message, absl::Time wall, absl::Duration now) {
  v1::RankFailure failure;
  failure.set_failure_class(v1::FAILURE_CLASS_INFRA);
  failure.set_reason(reason);
  failure.set_message(std::move(message));
  Failure(rank, failure, wall);
  Stop(v1::STOP_REASON_PEER_FAILED, false, options_.quick_grace, now);
}

void Task::Tick(absl::Time wall, absl::Duration now) {
  for (int i = 0; i < report_.ranks_size(); ++i) {
    const v1::RankStatus& status = report_.ranks(i);
    const int rank = status.rank();
    Rank& state = state_of(rank);
    if (!stop_reason_ && assign_.has_prepare_timeout() && status.state() <= v1::TASK_STATE_PREPARING &&
        now - begin_ >= FromProto(assign_.prepare_timeout())) {
      FailRank(rank, "PREPARE_TIMEOUT",
               absl::StrCat("rank ", rank, " was not ready within ",
                            absl::FormatDuration(FromProto(assign_.prepare_timeout()))),
               wall, now);
    }
    if (!stop_reason_ && status.state() == v1::TASK_STATE_RUNNING && !status.has_exit() &&
        state.watchdog.Expired(now)) {
      FailRank(rank, "HANG",
               absl::StrCat("rank ", rank, " made no progress for ", absl::FormatDuration(state.watchdog.silence(now)),
                            " in section ", state.watchdog.section(), " after step ", state.watchdog.step(),
                            "; the limit was ", absl::FormatDuration(state.watchdog.Timeout())),
               wall, now);
    }
    if (!state.has_process) continue;
    if (stop_reason_ && now >= terminate_time_ && !state.terminated && !status.has_exit()) {
      state.terminated = true;
      actions_.push_back({.kind = TaskAction::Kind::kTerminate, .rank = rank, .command = {}});
    }
    if (stop_reason_ && now >= stop_kill_time_) Kill(rank, now);
    // The rank has ended but something of its group lives on: nothing to be polite to.
    if (status.has_exit()) Kill(rank, now);
    if (state.killed && now - state.kill_time >= options_.kill_timeout) SetState(rank, v1::TASK_STATE_UNKNOWN);
  }
}

std::vector<int> Task::stuck_slots() const {
  std::vector<int> slots;
  for (const v1::RankStatus& status : report_.ranks()) {
    if (status.state() == v1::TASK_STATE_UNKNOWN) slots.push_back(status.slot());
  }
  return slots;
}

std::vector<TaskAction> Task::TakeActions() {
  return std::exchange(actions_, {});
}

}  // namespace trainyard::daemon
