// What users ask of a job: cancel, suspend, resume.
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/core/core.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "proto/rpc/error_details.h"

namespace trainyard::coordinator {
namespace {

absl::Status WrongState(const v1::Job& job, absl::string_view action) {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_STATE",
                         absl::StrCat("job ", job.name(), " is ", ShortName(job.state()), " and cannot be ", action),
                         {{"job", job.uid()}, {"name", job.name()}, {"state", ShortName(job.state())}});
}

std::string NameSpaceOr(const std::string& name_space) {
  return name_space.empty() ? "default" : name_space;
}

}  // namespace

void Core::EnterQueue(JobEntry& entry, Now now) {
  *entry.record.mutable_queue_time() = ToProto(now.wall);
  entry.waiting_since = now.mono;
  entry.queue_deadline_at = WaitsForOthers(entry) ? absl::InfiniteDuration() : now.mono + entry.options.queue_deadline;
}

absl::StatusOr<std::string> Core::Act(const char* method, Action action, const v1::JobActionRequest& request, Now now,
                                      Effects* effects) {
  const std::string name_space = NameSpaceOr(request.namespace_());
  TY_ASSIGN_OR_RETURN(const auto earlier, CheckRequest(name_space, request.request_id(), method, request.job()));
  if (earlier) return earlier->front();
  TY_ASSIGN_OR_RETURN(const std::string uid, Find(request.namespace_(), request.job()));
  TY_RETURN_IF_ERROR((this->*action)(*FindEntry(uid), now, effects));
  KeepRequest(name_space, request.request_id(), method, request.job(), {uid}, now, effects);
  Finish(now, effects);
  return uid;
}

absl::StatusOr<std::string> Core::Cancel(const v1::JobActionRequest& request, Now now, Effects* effects) {
  return Act("Cancel", &Core::CancelEntry, request, now, effects);
}
absl::StatusOr<std::string> Core::Suspend(const v1::JobActionRequest& request, Now now, Effects* effects) {
  return Act("Suspend", &Core::SuspendEntry, request, now, effects);
}
absl::StatusOr<std::string> Core::Resume(const v1::JobActionRequest& request, Now now, Effects* effects) {
  return Act("Resume", &Core::ResumeEntry, request, now, effects);
}

absl::Status Core::CancelEntry(JobEntry& entry, Now now, Effects* effects) {
  const bool has_ended_otherwise = IsTerminal(entry.state()) && entry.state() != v1::JOB_STATE_CANCELLED;
  if (has_ended_otherwise) return WrongState(entry.job(), "cancelled");
  CancelBecause(entry, "", now, effects);
  return absl::OkStatus();
}

// For a job that has ended nothing happens. An empty message means that a user wants it.
void Core::CancelBecause(JobEntry& entry, const std::string& message, Now now, Effects* effects) {
  if (IsTerminal(entry.state())) return;
  const bool is_being_cancelled =
      entry.state() == v1::JOB_STATE_STOPPING && entry.job().stop_reason() == v1::STOP_REASON_CANCEL;
  if (is_being_cancelled) return;
  Touch(entry).record.set_cancel_message(message);
  switch (entry.state()) {
    case v1::JOB_STATE_QUEUED:
    case v1::JOB_STATE_SUSPENDED: {
      v1::ExitRecord& exit = *entry.job().mutable_exit();
      exit.set_failure_class(v1::FAILURE_CLASS_CONTROL);
      exit.set_reason("CANCELLED");
      exit.set_rank(-1);
      exit.set_message(message.empty() ? "cancelled by a user" : message);
      *exit.mutable_time() = ToProto(now.wall);
      SetState(entry, v1::JOB_STATE_CANCELLED, "CANCEL", now, effects);
      return;
    }
    case v1::JOB_STATE_STOPPING:
      // Whatever the stop was for, it now ends in CANCELLED and never reverts.
      entry.job().set_stop_reason(v1::STOP_REASON_CANCEL);
      entry.record.clear_resume_when_stopped();
      break;
    default:
      BeginStopping(entry, v1::STOP_REASON_CANCEL, now, effects);
  }
  CancelTrials(entry, now, effects);  // need not wait for the parent's processes
}

absl::Status Core::SuspendEntry(JobEntry& entry, Now now, Effects* effects) {
  switch (entry.state()) {
    case v1::JOB_STATE_SUSPENDED:
      return absl::OkStatus();
    case v1::JOB_STATE_QUEUED:
      SetState(entry, v1::JOB_STATE_SUSPENDED, "SUSPEND", now, effects);
      return absl::OkStatus();
    case v1::JOB_STATE_RECOVERING:
      if (!HasUnsettledTasks(entry, now)) {
        entry.record.clear_decision_due();
        SetState(entry, v1::JOB_STATE_SUSPENDED, "SUSPEND", now, effects);
        return absl::OkStatus();
      }
      BeginStopping(entry, v1::STOP_REASON_SUSPEND, now, effects);
      return absl::OkStatus();
    case v1::JOB_STATE_ADMITTED:
    case v1::JOB_STATE_RUNNING:
      BeginStopping(entry, v1::STOP_REASON_SUSPEND, now, effects);
      return absl::OkStatus();
    case v1::JOB_STATE_STOPPING:
      if (entry.job().stop_reason() != v1::STOP_REASON_SUSPEND) return WrongState(entry.job(), "suspended");
      if (entry.record.resume_when_stopped()) Touch(entry).record.clear_resume_when_stopped();
      return absl::OkStatus();
    default:
      return WrongState(entry.job(), "suspended");
  }
}

absl::Status Core::ResumeEntry(JobEntry& entry, Now now, Effects* effects) {
  switch (entry.state()) {
    case v1::JOB_STATE_SUSPENDED:
      EnterQueue(entry, now);
      entry.record.clear_retry_time();
      entry.retry_at = -absl::InfiniteDuration();
      SetState(entry, v1::JOB_STATE_QUEUED, "RESUME", now, effects);
      JudgeDependencies(entry, now, effects);
      return absl::OkStatus();
    case v1::JOB_STATE_STOPPING:
      if (entry.job().stop_reason() != v1::STOP_REASON_SUSPEND) return WrongState(entry.job(), "resumed");
      if (!entry.record.resume_when_stopped()) Touch(entry).record.set_resume_when_stopped(true);
      return absl::OkStatus();
    case v1::JOB_STATE_SUCCEEDED:
    case v1::JOB_STATE_FAILED:
    case v1::JOB_STATE_CANCELLED:
      return WrongState(entry.job(), "resumed");
    default:
      return absl::OkStatus();  // it wants to run already
  }
}

}  // namespace trainyard::coordinator
