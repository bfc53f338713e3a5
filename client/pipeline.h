// What several jobs of one file say about each other. All of it the coordinator checks too, but here it has lines and
// shows a cycle as a whole.
#pragma once

#include <string>
#include <vector>

#include "client/source_map.h"
#include "client/yaml_spec.h"
#include "proto/spec/job_options.h"

namespace trainyard::client {

// Two jobs of one name, and jobs that wait for each other in a circle:
//   "pipeline.yaml:14:5: depends_on[0].job: waits for itself: train -> prune -> train"
// `options` are those of `jobs`, in order.
std::vector<SpecProblem> FindPipelineProblems(const std::vector<LoadedJob>& jobs,
                                              const std::vector<spec::JobOptions>& options);

// "a", "a and b", "a, b and c": the jobs that a spec waits for; empty if it waits for none.
std::string DependenciesText(const v1::JobSpec& spec);

}  // namespace trainyard::client
