// Jobs that wait for other jobs, and what they need of them (CP-16).
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/core/core.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "proto/spec/field_errors.h"
#include "proto/spec/references.h"

namespace trainyard::coordinator {
namespace {

void CopyEnd(const v1::Job& ended, DependencyRecord* dependency) {
  dependency->set_end_state(ended.state());
  *dependency->mutable_artifacts() = ended.result().artifacts();
}

const DependencyRecord* FindDependency(const JobRecord& record, const std::string& name) {
  for (const DependencyRecord& dependency : record.dependencies()) {
    if (dependency.name() == name) return &dependency;
  }
  return nullptr;
}

const v1::Artifact* FindArtifact(const DependencyRecord& dependency, const std::string& name) {
  for (const v1::Artifact& artifact : dependency.artifacts()) {
    if (artifact.name() == name) return &artifact;
  }
  return nullptr;
}

bool IsUnmet(const DependencyRecord& dependency) {
  return dependency.end_state() == v1::JOB_STATE_UNSPECIFIED;
}

}  // namespace

// A name means the job of that name in the same submit, else the newest there is now.
void Core::ResolveDependencies(JobEntry& entry, const Siblings& siblings, spec::FieldErrors& errors) const {
  for (const spec::DependencyOptions& wanted : entry.options.depends_on) {
    DependencyRecord& dependency = *entry.record.add_dependencies();
    dependency.set_name(wanted.job);
    dependency.set_must_succeed(wanted.must_succeed);
    if (const auto sibling = siblings.find({entry.job().namespace_(), wanted.job}); sibling != siblings.end()) {
      dependency.set_job_uid(sibling->second);
      dependency.set_job_name(wanted.job);
      continue;
    }
    const absl::StatusOr<std::string> uid = Find(entry.job().namespace_(), wanted.job);
    if (!uid.ok()) {
      errors.Add(spec::FieldOfDependency(entry.job().spec(), entry.options, wanted.job),
                 absl::StrCat("'", wanted.job, "' is neither the name nor the uid of a job in namespace ",
                              entry.job().namespace_()));
      continue;
    }
    const v1::Job& other = FindEntry(*uid)->job();
    dependency.set_job_uid(*uid);
    dependency.set_job_name(other.name());
    if (IsTerminal(other.state())) CopyEnd(other, &dependency);
  }
}

bool Core::WaitsForOthers(const JobEntry& entry) {
  const auto& dependencies = entry.record.dependencies();
  return std::any_of(dependencies.begin(), dependencies.end(), IsUnmet);
}

void Core::WatchDependencies(const JobEntry& entry) {
  for (const DependencyRecord& dependency : entry.record.dependencies()) {
    if (IsUnmet(dependency) && !IsTerminal(entry.state())) {
      dependents_[dependency.job_uid()].insert(entry.job().uid());
    }
  }
}

void Core::TellDependents(const JobEntry& ended, Now now, Effects* effects) {
  const auto found = dependents_.find(ended.job().uid());
  if (found == dependents_.end()) return;
  const std::set<std::string> dependents = std::move(found->second);
  dependents_.erase(found);
  for (const std::string& uid : dependents) {
    JobEntry* entry = FindEntry(uid);
    if (entry == nullptr || IsTerminal(entry->state())) continue;
    for (DependencyRecord& dependency : *Touch(*entry).record.mutable_dependencies()) {
      if (dependency.job_uid() == ended.job().uid()) CopyEnd(ended.job(), &dependency);
    }
    if (!WaitsForOthers(*entry)) EnterQueue(*entry, now);  // its place counts from its submit, its deadline from here
    JudgeDependencies(*entry, now, effects);
  }
  schedule_is_due_ = true;
}

// A queued job whose dependencies rule out that it can run fails. A suspended one keeps its state until it is resumed.
void Core::JudgeDependencies(JobEntry& entry, Now now, Effects* effects) {
  if (entry.state() != v1::JOB_STATE_QUEUED) return;
  const auto fail = [&](const char* reason, const std::string& message) {
    v1::ExitRecord& exit = *Touch(entry).job().mutable_exit();
    exit.set_failure_class(v1::FAILURE_CLASS_PERMANENT);
    exit.set_reason(reason);
    exit.set_rank(-1);
    exit.set_message(message);
    *exit.mutable_time() = ToProto(now.wall);
    SetState(entry, v1::JOB_STATE_FAILED, reason, now, effects);
  };
  for (const DependencyRecord& dependency : entry.record.dependencies()) {
    const bool is_bad =
        dependency.must_succeed() && !IsUnmet(dependency) && dependency.end_state() != v1::JOB_STATE_SUCCEEDED;
    if (!is_bad) continue;
    std::string message = absl::StrCat("needs job ", dependency.job_name(), " (", dependency.job_uid(),
                                       ") to succeed, but it is ", ShortName(dependency.end_state()));
    if (const JobEntry* other = FindEntry(dependency.job_uid()); other != nullptr) {
      absl::StrAppend(&message, ": ", other->job().exit().reason());
      if (!other->job().exit().message().empty()) absl::StrAppend(&message, ": ", other->job().exit().message());
    }
    return fail("DEPENDENCY_FAILED", message);
  }
  if (WaitsForOthers(entry)) return;
  for (const spec::ArtifactReference& reference : spec::ReferencesOf(entry.options)) {
    const DependencyRecord* dependency = FindDependency(entry.record, reference.job);
    if (dependency != nullptr && FindArtifact(*dependency, reference.artifact) != nullptr) continue;
    std::vector<std::string> names;
    if (dependency != nullptr) {
      for (const v1::Artifact& artifact : dependency->artifacts()) names.push_back(artifact.name());
    }
    return fail("ARTIFACT_MISSING",
                absl::StrCat(reference.field, ": job ", reference.job, " has no artifact '", reference.artifact,
                             "'; it has ", names.empty() ? "none" : absl::StrJoin(names, ", ")));
  }
}

std::string Core::DependencyText(const JobEntry& entry) const {
  std::vector<std::string> others;
  for (const DependencyRecord& dependency : entry.record.dependencies()) {
    if (!IsUnmet(dependency)) continue;
    // One of the same submit, which is only tried out, exists nowhere.
    const JobEntry* other = FindEntry(dependency.job_uid());
    const std::string state = ShortName(other == nullptr ? v1::JOB_STATE_QUEUED : other->state());
    others.push_back(absl::StrCat(dependency.job_name(), " (", state, ")"));
  }
  return absl::StrCat("waits for ", absl::StrJoin(others, ", "), " to end");
}

// What the spec's references mean: JudgeDependencies has let no job pass that lacks one.
void Core::AddArtifacts(const JobEntry& entry, v1::Assign* assign) {
  for (const spec::ArtifactReference& reference : spec::ReferencesOf(entry.options)) {
    const DependencyRecord* dependency = FindDependency(entry.record, reference.job);
    const v1::Artifact* artifact = dependency == nullptr ? nullptr : FindArtifact(*dependency, reference.artifact);
    if (artifact == nullptr) continue;
    v1::ResolvedArtifact& resolved = *assign->add_artifacts();
    resolved.mutable_ref()->set_job(reference.job);
    resolved.mutable_ref()->set_artifact(reference.artifact);
    resolved.set_path(artifact->path());
  }
}

}  // namespace trainyard::coordinator
