// Watching one job over restarts of the coordinator.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/context.h"

namespace trainyard::client {

// The newest job of that name, or the job of that uid.
absl::StatusOr<v1::Job> GetJob(Context& context, const std::string& job);

struct FollowCallbacks {
  // The state now, then each change. False ends the watch.
  std::function<bool(const v1::Job&)> on_job;
  std::function<void(const v1::JobProgress&)> on_progress;
};

// Goes on at the last revision after a lost connection, with a message on stderr and growing pauses, for ever. Returns
// OK when on_job said so; Cancelled on Ctrl-C; DeadlineExceeded; or what the coordinator refuses.
absl::Status FollowJob(Context& context, const std::string& uid, const std::string& name_space, absl::Time deadline,
                       const FollowCallbacks& callbacks);

// Shows progress until the job has ended and tells how; the exit code is that of the end. Ctrl-C leaves the job running
// and says so.
int ShowJob(Context& context, const v1::Job& job);

// "job tiny succeeded after 2m 05s: ..." with the reason and last log lines of a failure.
std::string EndSummary(const v1::Job& job);

}  // namespace trainyard::client
