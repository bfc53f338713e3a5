#include "worker/runner/restore.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "worker/ckpt/checkpoint.h"

namespace trainyard::runner {

absl::StatusOr<int64_t> RestoreNewest(const RestoreOptions& options, jobs::Job& job, int64_t max_step) {
  std::vector<v1::CheckpointManifest> candidates;
  for (const v1::CheckpointManifest& manifest : options.committed) {
    if (manifest.step() <= max_step) candidates.push_back(manifest);
  }
  if (candidates.empty()) {
    if (!options.committed.empty() && max_step > 0) {
      return absl::DataLossError(
          absl::StrCat("no checkpoint of step ", max_step, " or before can be read by all ranks"));
    }
    TY_RETURN_IF_ERROR(job.Initialize());
    return 0;
  }
  absl::StatusOr<std::unique_ptr<ckpt::CheckpointReader>> reader =
      ckpt::CheckpointReader::OpenNewest(options.job_dir, candidates, options.rank);
  if (!reader.ok()) {
    return absl::DataLossError(
        absl::StrCat("none of the ", candidates.size(),
                     " committed checkpoints can be read; the newest: ", reader.status().message()));
  }
  TY_RETURN_IF_ERROR(job.Restore(**reader));
  LogInfo("restored step ", (*reader)->step(), " from ", (*reader)->manifest().directory());
  return (*reader)->step();
}

absl::StatusOr<int64_t> AgreeOnRestore(const RestoreOptions& options, jobs::Job& job, comm::Communicator& control) {
  std::vector<int64_t> steps(static_cast<size_t>(control.size()));
  // Each round some rank goes back by a checkpoint at least, so this ends.
  while (true) {
    const int64_t own = job.step();
    TY_RETURN_IF_ERROR(control.AllGatherBytes(
        &own, std::vector<int64_t>(steps.size(), static_cast<int64_t>(sizeof(own))), steps.data()));
    const auto [lowest, highest] = std::minmax_element(steps.begin(), steps.end());
    if (*lowest == *highest) return *lowest;
    if (own == *lowest) continue;
    LogWarning("another rank can only read the checkpoint of step ", *lowest, "; leaving step ", own);
    TY_ASSIGN_OR_RETURN(const int64_t step, RestoreNewest(options, job, *lowest));
    if (step > *lowest) return absl::InternalError(absl::StrCat("restored step ", step, " instead of ", *lowest));
  }
}

}  // namespace trainyard::runner
