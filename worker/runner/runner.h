// One rank, from its first word with the daemon to its exit code.
//
//   Launch -> parse the spec, put paths in the place of references -> Prepare -> restore -> rendezvous -> READY ...
//   StartTraining -> connect -> agree on the restored step -> the loop -> result or stop
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "proto/spec/job_options.h"
#include "worker/jobs/job.h"

namespace trainyard::runner {

using MakeJobFunction = std::function<absl::StatusOr<std::unique_ptr<jobs::Job>>(const spec::JobOptions&)>;

struct RankOptions {
  // Folder of this host's copies of files (worker/cache); not used for 0 bytes.
  std::string cache_dir;
  int64_t cache_bytes = 0;
};

// Returns the exit code (fault.h); the caller leaves with _exit, as communicators of a broken world are not worth
// unwinding. Takes SIGTERM for itself; to be called before other threads exist. If the daemon goes away, the process
// ends at once.
int RunRank(UniqueFd link, const RankOptions& options, const MakeJobFunction& make_job);

}  // namespace trainyard::runner
