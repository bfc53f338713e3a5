// The trials of a pruning search as job specs, and what their outcomes say.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/spec/prune_search_options.h"
#include "proto/v1/job.pb.h"
#include "proto/v1/trial.pb.h"
#include "worker/prune/search/genome.h"

namespace trainyard::jobs {

// Specs are functions of the arguments alone. All carry the search's seed, so that the same draw means the same
// documents for all candidates.
class PruneTrials {
 public:
  // `parent` gives data, world, retries and the section training; the model is `model_path`.
  PruneTrials(const v1::JobSpec& parent, const std::string& model_path, uint64_t seed);

  // In the world of the parent's section.
  v1::JobSpec Calibrate(int64_t tokens) const;
  v1::JobSpec Layers(const std::string& hessians, int64_t block, spec::PruneModule module,
                     const std::vector<int32_t>& removed_columns, const spec::PruneDatabaseOptions& database,
                     bool by_magnitude) const;
  v1::JobSpec Candidate(const std::string& database, const prune::Genome& genome, const spec::PruneStageOptions& stage,
                        int64_t draw, const spec::PruneSearchRules& rules, bool prune_kv_heads) const;
  // Training of `model` by the parent's section training, in its world.
  v1::JobSpec Continue(const std::string& model) const;

 private:
  // On one rank.
  v1::JobSpec Task() const;

  v1::JobSpec base_;
  v1::TrainingSpec training_;
};

// The folder of a trial's artifact. FailedPrecondition, saying why, if the trial did not succeed or has none.
absl::StatusOr<std::string> ArtifactOf(const v1::TrialOutcome& outcome, const std::string& name,
                                       const std::string& what);

// Nothing if the trial failed.
std::optional<double> ValueOf(const v1::TrialOutcome& outcome, const std::string& name);

}  // namespace trainyard::jobs
