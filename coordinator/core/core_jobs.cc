// What users ask: submit, cancel, suspend, resume.
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "coordinator/core/core.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "proto/rpc/error_details.h"

namespace trainyard::coordinator {
namespace {

constexpr size_t kMaxRequestId = 36;
constexpr size_t kMaxSpecBytes = 1 << 20;  // CP-54
constexpr size_t kNameSuffix = 8;

// FNV-1a with a final mix: the seed of a job that gives none, the same for the same uid everywhere.
uint64_t SeedOf(const std::string& uid) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const unsigned char c : uid) hash = (hash ^ c) * 0x100000001B3ull;
  hash ^= hash >> 29;
  return hash >> 1;  // fits a signed field of any client
}

absl::Status WrongState(const v1::Job& job, absl::string_view action) {
  return ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WRONG_STATE",
                         absl::StrCat("job ", job.name(), " is ", ShortName(job.state()), " and cannot be ", action),
                         {{"job", job.uid()}, {"name", job.name()}, {"state", ShortName(job.state())}});
}

std::string NameSpaceOr(const std::string& name_space) {
  return name_space.empty() ? "default" : name_space;
}

}  // namespace

// The uid of the job that the same request made before; nullopt if it is new.
absl::StatusOr<std::optional<std::string>> Core::CheckRequest(const std::string& name_space, const std::string& id,
                                                              const std::string& method,
                                                              const std::string& digest) const {
  if (id.empty()) return std::nullopt;
  if (id.size() > kMaxRequestId) {
    absl::Status status = absl::InvalidArgumentError(
        absl::StrCat("request_id: ", id.size(), " characters, at most ", kMaxRequestId, " allowed"));
    SetFieldViolations(&status, {{"request_id", absl::StrCat(id.size(), " characters, at most ", kMaxRequestId)}});
    return status;
  }
  const auto found = requests_.find({name_space, id, method});
  if (found == requests_.end()) return std::nullopt;
  if (found->second.payload_digest() != digest) {
    return ErrorWithReason(absl::StatusCode::kInvalidArgument, "REQUEST_ID_REUSED",
                           absl::StrCat("request_id ", id, " was used before with another payload"),
                           {{"request_id", id}, {"job", found->second.job_uid()}});
  }
  if (FindEntry(found->second.job_uid()) == nullptr) {
    return ErrorWithReason(absl::StatusCode::kNotFound, "JOB_DELETED",
                           absl::StrCat("the job of request_id ", id, " was deleted after its ttl_after_finish"),
                           {{"request_id", id}, {"job", found->second.job_uid()}});
  }
  return found->second.job_uid();
}

void Core::KeepRequest(const std::string& name_space, const std::string& id, const std::string& method,
                       const std::string& digest, const std::string& uid, Now now, Effects* effects) {
  if (id.empty()) return;
  RequestRecord record;
  record.set_namespace_(name_space);
  record.set_request_id(id);
  record.set_method(method);
  record.set_payload_digest(digest);
  record.set_job_uid(uid);
  *record.mutable_expire_time() = ToProto(now.wall + timing_.request_retention);
  requests_[{name_space, id, method}] = record;
  effects->writes.push_back(PutRequest{std::move(record)});
}

absl::StatusOr<SubmitResult> Core::Submit(const v1::SubmitRequest& request, const std::string& uid, Now now,
                                          Effects* effects) {
  if (request.spec().ByteSizeLong() > kMaxSpecBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec: ", request.spec().ByteSizeLong(), " bytes, at most ", kMaxSpecBytes, " allowed"));
  }
  TY_ASSIGN_OR_RETURN(spec::JobOptions options, spec::ParseJob(request.spec()));
  const std::string digest = spec::RequestDigest(request.spec());
  TY_ASSIGN_OR_RETURN(const std::optional<std::string> earlier,
                      CheckRequest(options.name_space, request.request_id(), "Submit", digest));
  if (earlier) return SubmitResult{.uid = *earlier, .deduplicated = true, .validated = {}};

  const std::string kind = spec::KindName(request.spec());
  if (options.name.empty()) options.name = spec::GeneratedName(request.spec(), uid.substr(0, kNameSuffix));
  const auto same_name = newest_by_name_.find({options.name_space, options.name});
  if (same_name != newest_by_name_.end() && !IsTerminal(FindEntry(same_name->second)->state())) {
    const v1::Job& other = FindEntry(same_name->second)->job();
    return ErrorWithReason(absl::StatusCode::kAlreadyExists, "NAME_IN_USE",
                           absl::StrCat("a job named ", options.name, " is ", ShortName(other.state()),
                                        " in namespace ", options.name_space),
                           {{"name", options.name}, {"namespace", options.name_space}, {"job", other.uid()}});
  }

  auto entry = std::make_unique<JobEntry>();
  v1::Job& job = entry->job();
  job.set_uid(uid);
  job.set_name(options.name);
  job.set_namespace_(options.name_space);
  job.set_queue(options.queue);
  job.set_kind(kind);
  job.set_priority(options.priority);
  *job.mutable_spec() = request.spec();
  job.mutable_spec()->set_name(options.name);
  if (!options.seed) {
    options.seed = SeedOf(uid);
    job.mutable_spec()->set_seed(*options.seed);
  }
  job.set_state(options.suspend ? v1::JOB_STATE_SUSPENDED : v1::JOB_STATE_QUEUED);
  *job.mutable_submit_time() = ToProto(now.wall);
  entry->options = std::move(options);
  EnterQueue(*entry, now);

  if (request.validate_only()) {
    job.clear_uid();
    SubmitResult result;
    result.validated = job;
    *result.validated.mutable_pending() = PendingOf(*entry, Capacities(), now);
    return result;
  }
  KeepRequest(job.namespace_(), request.request_id(), "Submit", digest, uid, now, effects);
  newest_by_name_[{job.namespace_(), job.name()}] = uid;
  by_time_.emplace(FromProto(job.submit_time()), uid);
  IndexJob(*entry);
  changed_.push_back(uid);
  const v1::JobState state = job.state();
  TY_CHECK(jobs_.emplace(uid, std::move(entry)).second);
  effects->transitions.push_back({v1::JOB_STATE_UNSPECIFIED, state, "SUBMIT"});
  schedule_is_due_ = true;
  Finish(effects);
  return SubmitResult{.uid = uid, .deduplicated = false, .validated = {}};
}

void Core::EnterQueue(JobEntry& entry, Now now) {
  *entry.record.mutable_queue_time() = ToProto(now.wall);
  entry.waiting_since = now.mono;
  entry.queue_deadline_at = now.mono + entry.options.queue_deadline;
}

absl::StatusOr<std::string> Core::Act(const char* method, Action action, const v1::JobActionRequest& request, Now now,
                                      Effects* effects) {
  const std::string name_space = NameSpaceOr(request.namespace_());
  TY_ASSIGN_OR_RETURN(const std::optional<std::string> earlier,
                      CheckRequest(name_space, request.request_id(), method, request.job()));
  if (earlier) return *earlier;
  TY_ASSIGN_OR_RETURN(const std::string uid, Find(request.namespace_(), request.job()));
  TY_RETURN_IF_ERROR((this->*action)(*FindEntry(uid), now, effects));
  KeepRequest(name_space, request.request_id(), method, request.job(), uid, now, effects);
  Finish(effects);
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
  switch (entry.state()) {
    case v1::JOB_STATE_CANCELLED:
      return absl::OkStatus();
    case v1::JOB_STATE_SUCCEEDED:
    case v1::JOB_STATE_FAILED:
      return WrongState(entry.job(), "cancelled");
    case v1::JOB_STATE_QUEUED:
    case v1::JOB_STATE_SUSPENDED: {
      v1::ExitRecord& exit = *entry.job().mutable_exit();
      exit.set_failure_class(v1::FAILURE_CLASS_CONTROL);
      exit.set_reason("CANCELLED");
      exit.set_rank(-1);
      exit.set_message("cancelled by a user");
      *exit.mutable_time() = ToProto(now.wall);
      SetState(entry, v1::JOB_STATE_CANCELLED, "CANCEL", now, effects);
      return absl::OkStatus();
    }
    case v1::JOB_STATE_STOPPING:
      // Whatever the stop was for, it now ends in CANCELLED and never reverts.
      if (entry.job().stop_reason() != v1::STOP_REASON_CANCEL) {
        Touch(entry).job().set_stop_reason(v1::STOP_REASON_CANCEL);
        entry.record.clear_resume_when_stopped();
      }
      return absl::OkStatus();
    default:
      BeginStopping(entry, v1::STOP_REASON_CANCEL, now, effects);
      return absl::OkStatus();
  }
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
