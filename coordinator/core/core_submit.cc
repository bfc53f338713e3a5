// How jobs come to be: submit, one or several, each once.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/status_macros.h"
#include "coordinator/core/core.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "proto/rpc/error_details.h"
#include "proto/spec/field_errors.h"
#include "proto/spec/references.h"

namespace trainyard::coordinator {
namespace {

constexpr size_t kMaxRequestId = 36;
constexpr size_t kMaxSpecBytes = 1 << 20;  // CP-54
constexpr size_t kNameSuffix = 8;
// The answer repeats the specs and must fit one message.
constexpr int kMaxBatch = 256;
constexpr size_t kMaxBatchBytes = 2 << 20;

// FNV-1a with a final mix: the seed of a job that gives none, the same for the same uid everywhere.
uint64_t SeedOf(const std::string& uid) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const unsigned char c : uid) hash = (hash ^ c) * 0x100000001B3ull;
  hash ^= hash >> 29;
  return hash >> 1;  // fits a signed field of any client
}

std::string BatchDigest(const v1::SubmitBatchRequest& request) {
  std::string digests;
  for (const v1::JobSpec& spec : request.specs()) absl::StrAppend(&digests, spec::RequestDigest(spec));
  return DigestOf(digests);
}

// "a -> b -> a", or empty if no job waits for itself; `where` and `towards` are its first two. needs[i]: the jobs that
// job i waits for.
std::string FindCycle(const std::vector<std::vector<size_t>>& needs, const std::vector<std::string>& names,
                      size_t* where, std::string* towards) {
  enum { kNew, kOnPath, kDone };
  std::vector<int> marks(needs.size(), kNew);
  std::vector<std::pair<size_t, size_t>> path;  // (job, its next edge)
  for (size_t start = 0; start < needs.size(); ++start) {
    if (marks[start] != kNew) continue;
    path.push_back({start, 0});
    marks[start] = kOnPath;
    while (!path.empty()) {
      auto& [job, edge] = path.back();
      if (edge == needs[job].size()) {
        marks[job] = kDone;
        path.pop_back();
        continue;
      }
      const size_t next = needs[job][edge++];
      if (marks[next] == kOnPath) {
        std::vector<std::string> cycle;
        auto it = std::find_if(path.begin(), path.end(), [&](const auto& step) { return step.first == next; });
        for (; it != path.end(); ++it) cycle.push_back(names[it->first]);
        cycle.push_back(names[next]);
        *where = next;
        *towards = cycle[1];
        return absl::StrJoin(cycle, " -> ");
      }
      if (marks[next] != kNew) continue;
      marks[next] = kOnPath;
      path.push_back({next, 0});
    }
  }
  return "";
}

}  // namespace

// The uids of the jobs that the same request made before; nullopt if it is new.
absl::StatusOr<std::optional<std::vector<std::string>>> Core::CheckRequest(const std::string& name_space,
                                                                           const std::string& id,
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
  const RequestRecord& record = found->second;
  std::vector<std::string> uids(record.job_uids().begin(), record.job_uids().end());
  if (uids.empty()) uids.push_back(record.job_uid());
  if (record.payload_digest() != digest) {
    return ErrorWithReason(absl::StatusCode::kInvalidArgument, "REQUEST_ID_REUSED",
                           absl::StrCat("request_id ", id, " was used before with another payload"),
                           {{"request_id", id}, {"job", uids.front()}});
  }
  for (const std::string& uid : uids) {
    if (FindEntry(uid) != nullptr) continue;
    return ErrorWithReason(absl::StatusCode::kNotFound, "JOB_DELETED",
                           absl::StrCat("the job of request_id ", id, " was deleted after its ttl_after_finish"),
                           {{"request_id", id}, {"job", uid}});
  }
  return uids;
}

void Core::KeepRequest(const std::string& name_space, const std::string& id, const std::string& method,
                       const std::string& digest, const std::vector<std::string>& uids, Now now, Effects* effects) {
  if (id.empty()) return;
  RequestRecord record;
  record.set_namespace_(name_space);
  record.set_request_id(id);
  record.set_method(method);
  record.set_payload_digest(digest);
  if (uids.size() == 1) {
    record.set_job_uid(uids.front());
  } else {
    for (const std::string& uid : uids) record.add_job_uids(uid);
  }
  *record.mutable_expire_time() = ToProto(now.wall + timing_.request_retention);
  requests_[{name_space, id, method}] = record;
  effects->writes.push_back(PutRequest{std::move(record)});
}

bool Core::IsNameTaken(const std::string& name_space, const std::string& name) const {
  const auto found = newest_by_name_.find({name_space, name});
  return found != newest_by_name_.end() && !IsTerminal(FindEntry(found->second)->state());
}

absl::Status Core::CheckNameIsFree(const spec::JobOptions& options) const {
  if (!IsNameTaken(options.name_space, options.name)) return absl::OkStatus();
  const v1::Job& other = FindEntry(newest_by_name_.at({options.name_space, options.name}))->job();
  return ErrorWithReason(absl::StatusCode::kAlreadyExists, "NAME_IN_USE",
                         absl::StrCat("a job named ", options.name, " is ", ShortName(other.state()), " in namespace ",
                                      options.name_space),
                         {{"name", options.name}, {"namespace", options.name_space}, {"job", other.uid()}});
}

// A job with name and seed that is in no index yet.
std::unique_ptr<Core::JobEntry> Core::MakeEntry(const v1::JobSpec& spec, spec::JobOptions options,
                                                const std::string& uid, Now now) const {
  auto entry = std::make_unique<JobEntry>();
  v1::Job& job = entry->job();
  if (options.name.empty()) options.name = spec::GeneratedName(spec, uid.substr(0, kNameSuffix));
  job.set_uid(uid);
  job.set_name(options.name);
  job.set_namespace_(options.name_space);
  job.set_queue(options.queue);
  job.set_kind(spec::KindName(spec));
  job.set_priority(options.priority);
  *job.mutable_spec() = spec;
  job.mutable_spec()->set_name(options.name);
  if (!options.seed) {
    options.seed = SeedOf(uid);
    job.mutable_spec()->set_seed(*options.seed);
  }
  job.set_state(options.suspend ? v1::JOB_STATE_SUSPENDED : v1::JOB_STATE_QUEUED);
  *job.mutable_submit_time() = ToProto(now.wall);
  entry->gang = spec::GangOf(options);
  entry->options = std::move(options);
  return entry;
}

Core::JobEntry& Core::AddEntry(std::unique_ptr<JobEntry> made, Now now, Effects* effects) {
  const std::string uid = made->job().uid();
  const auto [it, is_new] = jobs_.emplace(uid, std::move(made));
  TY_CHECK(is_new);
  JobEntry& entry = *it->second;
  const v1::Job& job = entry.job();
  EnterQueue(entry, now);
  newest_by_name_[{job.namespace_(), job.name()}] = uid;
  by_time_.emplace(FromProto(job.submit_time()), uid);
  IndexJob(entry);
  Touch(entry);
  effects->transitions.push_back({v1::JOB_STATE_UNSPECIFIED, job.state(), "SUBMIT"});
  schedule_is_due_ = true;
  return entry;
}

absl::StatusOr<SubmitResult> Core::Submit(const v1::SubmitRequest& request, const std::string& uid, Now now,
                                          Effects* effects) {
  if (request.spec().ByteSizeLong() > kMaxSpecBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec: ", request.spec().ByteSizeLong(), " bytes, at most ", kMaxSpecBytes, " allowed"));
  }
  TY_ASSIGN_OR_RETURN(spec::JobOptions options, spec::ParseJob(request.spec()));
  const std::string digest = spec::RequestDigest(request.spec());
  TY_ASSIGN_OR_RETURN(const auto earlier, CheckRequest(options.name_space, request.request_id(), "Submit", digest));
  if (earlier) return SubmitResult{.uid = earlier->front(), .deduplicated = true, .validated = {}};

  std::unique_ptr<JobEntry> made = MakeEntry(request.spec(), std::move(options), uid, now);
  TY_RETURN_IF_ERROR(CheckNameIsFree(made->options));
  spec::FieldErrors errors;
  ResolveDependencies(*made, {}, errors);
  TY_RETURN_IF_ERROR(errors.ToStatus());
  if (request.validate_only()) {
    EnterQueue(*made, now);
    SubmitResult result;
    result.validated = made->job();
    result.validated.clear_uid();
    *result.validated.mutable_pending() = PendingOf(*made, Capacities(), now);
    return result;
  }
  JobEntry& entry = AddEntry(std::move(made), now, effects);
  KeepRequest(entry.job().namespace_(), request.request_id(), "Submit", digest, {uid}, now, effects);
  WatchDependencies(entry);
  JudgeDependencies(entry, now, effects);
  Finish(now, effects);
  return SubmitResult{.uid = uid, .deduplicated = false, .validated = {}};
}

absl::StatusOr<SubmitBatchResult> Core::SubmitBatch(const v1::SubmitBatchRequest& request,
                                                    std::vector<std::string> uids, Now now, Effects* effects) {
  const size_t count = request.specs_size();
  const auto refuse = [](const std::string& field, const std::string& text) {
    spec::FieldErrors errors;
    errors.Add(field, text);
    return errors.ToStatus();
  };
  if (count < 1 || count > kMaxBatch) return refuse("jobs", absl::StrCat(count, " jobs not in [1, ", kMaxBatch, "]"));
  if (request.ByteSizeLong() > kMaxBatchBytes) {
    return refuse("jobs", absl::StrCat(request.ByteSizeLong(), " bytes, at most ", kMaxBatchBytes, " allowed"));
  }
  TY_CHECK_EQ(uids.size(), count);
  std::sort(uids.begin(), uids.end());

  spec::FieldErrors errors;
  std::vector<std::unique_ptr<JobEntry>> made(count);
  Siblings siblings;
  std::map<std::string, size_t> number_of;  // uid -> place in the request
  for (size_t i = 0; i < count; ++i) {
    const std::string path = absl::StrCat("jobs[", i, "]");
    if (request.specs(i).ByteSizeLong() > kMaxSpecBytes) {
      errors.Add(path, absl::StrCat(request.specs(i).ByteSizeLong(), " bytes, at most ", kMaxSpecBytes, " allowed"));
      continue;
    }
    absl::StatusOr<spec::JobOptions> options = spec::ParseJob(request.specs(i));
    if (!options.ok()) {
      for (const FieldViolation& problem : GetFieldViolations(options.status())) {
        errors.In(path).Add(problem.path, problem.text);
      }
      continue;
    }
    made[i] = MakeEntry(request.specs(i), *std::move(options), uids[i], now);
    number_of[uids[i]] = i;
    const v1::Job& job = made[i]->job();
    const auto [twin, is_first] = siblings.emplace(std::make_pair(job.namespace_(), job.name()), uids[i]);
    if (!is_first) {
      errors.Add(absl::StrCat(path, ".name"),
                 absl::StrCat("'", job.name(), "' is also the name of jobs[", number_of.at(twin->second), "]"));
    }
  }
  TY_RETURN_IF_ERROR(errors.ToStatus());
  const std::string name_space = made.front()->job().namespace_();
  const std::string digest = BatchDigest(request);
  TY_ASSIGN_OR_RETURN(const auto earlier, CheckRequest(name_space, request.request_id(), "SubmitBatch", digest));
  if (earlier) return SubmitBatchResult{.uids = *earlier, .deduplicated = true, .validated = {}};

  std::vector<std::vector<size_t>> needs(count);
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) {
    TY_RETURN_IF_ERROR(CheckNameIsFree(made[i]->options));
    spec::FieldErrors inner = errors.In(absl::StrCat("jobs[", i, "]"));
    ResolveDependencies(*made[i], siblings, inner);
    names.push_back(made[i]->job().name());
    for (const DependencyRecord& dependency : made[i]->record.dependencies()) {
      if (const auto it = number_of.find(dependency.job_uid()); it != number_of.end()) needs[i].push_back(it->second);
    }
  }
  size_t where = 0;
  std::string towards;
  if (const std::string cycle = FindCycle(needs, names, &where, &towards); !cycle.empty()) {
    const JobEntry& first = *made[where];
    errors.In(absl::StrCat("jobs[", where, "]"))
        .Add(spec::FieldOfDependency(first.job().spec(), first.options, towards),
             absl::StrCat("jobs that wait for each other: ", cycle));
  }
  TY_RETURN_IF_ERROR(errors.ToStatus());

  SubmitBatchResult result;
  if (request.validate_only()) {
    for (std::unique_ptr<JobEntry>& entry : made) {
      EnterQueue(*entry, now);
      v1::Job& job = result.validated.emplace_back(entry->job());
      job.clear_uid();
      *job.mutable_pending() = PendingOf(*entry, Capacities(), now);
    }
    return result;
  }
  for (std::unique_ptr<JobEntry>& entry : made) AddEntry(std::move(entry), now, effects);
  for (const std::string& uid : uids) {
    WatchDependencies(*FindEntry(uid));
    JudgeDependencies(*FindEntry(uid), now, effects);
  }
  KeepRequest(name_space, request.request_id(), "SubmitBatch", digest, uids, now, effects);
  Finish(now, effects);
  result.uids = std::move(uids);
  return result;
}

}  // namespace trainyard::coordinator
