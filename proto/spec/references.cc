#include "proto/spec/references.h"

#include <algorithm>
#include <variant>

#include "absl/strings/str_cat.h"
#include "proto/spec/choice.h"
#include "proto/spec/field_errors.h"
#include "proto/v1/job.pb.h"

namespace trainyard::spec {
namespace {

// A name or a uid: short, and of harmless characters.
bool IsJobReference(absl::string_view job) {
  const auto inner = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; };
  return !job.empty() && job.size() <= 63 && std::all_of(job.begin(), job.end(), inner);
}

}  // namespace

std::vector<ArtifactReference> ReferencesOf(const JobOptions& options) {
  std::vector<ArtifactReference> references;
  if (const auto* const model = std::get_if<ArtifactModel>(&options.model.source)) {
    references.push_back({"model.artifact", model->job, model->artifact});
  }
  if (!options.data.selection.empty()) {
    references.push_back({"data.selection", options.data.selection, kSelectionArtifact});
  }
  return references;
}

std::vector<DependencyOptions> ParseDependencies(const v1::JobSpec& spec, const JobOptions& options,
                                                 FieldErrors& errors) {
  constexpr int kMaxDependencies = 64;
  std::vector<DependencyOptions> dependencies;
  const auto add = [&](const std::string& field, const DependencyOptions& dependency) {
    if (!IsJobReference(dependency.job)) {
      errors.Add(field, absl::StrCat("'", dependency.job.substr(0, 80), "' is neither the name nor the uid of a job"));
      return;
    }
    if (!options.name.empty() && dependency.job == options.name) {
      errors.Add(field, absl::StrCat("'", dependency.job, "' is this job itself"));
      return;
    }
    for (DependencyOptions& known : dependencies) {
      if (known.job != dependency.job) continue;
      known.must_succeed |= dependency.must_succeed;
      return;
    }
    dependencies.push_back(dependency);
  };
  if (spec.depends_on_size() > kMaxDependencies) {
    errors.Add("depends_on", absl::StrCat(spec.depends_on_size(), " jobs, at most ", kMaxDependencies, " allowed"));
  }
  for (int i = 0; i < std::min(spec.depends_on_size(), kMaxDependencies); ++i) {
    FieldErrors inner = errors.In(absl::StrCat("depends_on[", i, "]"));
    const bool must_succeed = Choose<v1::Dependency::Condition, bool>(
        inner, "condition", spec.depends_on(i).condition(),
        {{v1::Dependency::CONDITION_SUCCEEDED, true}, {v1::Dependency::CONDITION_FINISHED, false}});
    add(absl::StrCat("depends_on[", i, "].job"), {spec.depends_on(i).job(), must_succeed});
  }
  for (const ArtifactReference& reference : ReferencesOf(options)) add(reference.field, {reference.job, true});
  return dependencies;
}

std::string FieldOfDependency(const v1::JobSpec& spec, const JobOptions& options, absl::string_view job) {
  for (int i = 0; i < spec.depends_on_size(); ++i) {
    if (spec.depends_on(i).job() == job) return absl::StrCat("depends_on[", i, "].job");
  }
  for (const ArtifactReference& reference : ReferencesOf(options)) {
    if (reference.job == job) return reference.field;
  }
  return "depends_on";
}

void ResolveReference(absl::string_view job, absl::string_view artifact, const std::string& path, JobOptions* options) {
  if (const auto* const model = std::get_if<ArtifactModel>(&options->model.source);
      model != nullptr && model->job == job && model->artifact == artifact) {
    options->model.source = PathModel{path, model->from_scratch};
  }
  if (options->data.selection == job && artifact == kSelectionArtifact && !job.empty()) {
    options->data.selection.clear();
    options->data.samples = path;
  }
}

absl::Status CheckResolved(const JobOptions& options) {
  for (const ArtifactReference& reference : ReferencesOf(options)) {
    return absl::FailedPreconditionError(absl::StrCat(reference.field, ": the artifact '", reference.artifact,
                                                      "' of job '", reference.job, "' was not resolved"));
  }
  return absl::OkStatus();
}

}  // namespace trainyard::spec
