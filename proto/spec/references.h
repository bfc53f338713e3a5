// What a spec says about other jobs: depends_on, and references to their artifacts.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/spec/job_options.h"

namespace trainyard::spec {

class FieldErrors;

// The name of the artifact that a select_data job leaves.
inline constexpr char kSelectionArtifact[] = "selection";

// A reference by its place in the spec.
struct ArtifactReference {
  std::string field;  // "model.artifact"
  std::string job;    // name or uid
  std::string artifact;
};
std::vector<ArtifactReference> ReferencesOf(const JobOptions& options);

// The jobs of depends_on and those of the references, which must succeed; each once. Called by ParseJob.
std::vector<DependencyOptions> ParseDependencies(const v1::JobSpec& spec, const JobOptions& options,
                                                 FieldErrors& errors);

// Where `spec`, parsed as `options`, names a job that it depends on: "depends_on[1].job", else the field of its first
// reference to it, else "depends_on".
std::string FieldOfDependency(const v1::JobSpec& spec, const JobOptions& options, absl::string_view job);

// Puts a path in the place of the reference (job, artifact): model.artifact becomes a path, data.selection samples.
void ResolveReference(absl::string_view job, absl::string_view artifact, const std::string& path, JobOptions* options);

// FailedPrecondition naming the first reference that is left.
absl::Status CheckResolved(const JobOptions& options);

}  // namespace trainyard::spec
