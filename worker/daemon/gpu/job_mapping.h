// Files that tell dcgm-exporter which job uses a GPU, so that its series carry the job (CP-70): in one folder, a file
// for each GPU, named by its index, with one job id a line. For its --hpc-job-mapping-dir; it reads the files at each
// scrape and skips names that are no numbers, such as those of files that are being written.
#pragma once

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trainyard::daemon {

class JobMapping {
 public:
  // Without a folder ("") nothing is written. Makes the folder and removes the files of `indices`, which an earlier
  // daemon may have left; files of other GPUs are others' business.
  static absl::StatusOr<JobMapping> Create(std::string directory, const std::set<int>& indices);

  // Readers see the whole line or no file.
  absl::Status Set(int index, const std::string& job_id) const;
  absl::Status Clear(int index) const;

 private:
  explicit JobMapping(std::string directory) : directory_(std::move(directory)) {}
  std::string directory_;
};

}  // namespace trainyard::daemon
