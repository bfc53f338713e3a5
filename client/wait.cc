#include <ostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/commands.h"
#include "client/duration_text.h"
#include "client/follow.h"

namespace trainyard::client {
namespace {

// True if a job that succeeded has certainly been in `state`.
bool IsOnTheWay(v1::JobState state) {
  return state == v1::JOB_STATE_QUEUED || state == v1::JOB_STATE_ADMITTED || state == v1::JOB_STATE_RUNNING;
}

}  // namespace

int RunWait(const WaitOptions& options, Context& context) {
  v1::JobState wanted = v1::JOB_STATE_UNSPECIFIED;
  const bool any_end = options.state == "finished";
  if (!any_end && (!v1::JobState_Parse(absl::StrCat("JOB_STATE_", absl::AsciiStrToUpper(options.state)), &wanted) ||
                   wanted == v1::JOB_STATE_UNSPECIFIED)) {
    context.err() << "trainyard: --for " << options.state
                  << ": not one of finished, queued, suspended, admitted, running, recovering, stopping, succeeded, "
                     "failed, cancelled\n";
    return kExitUsage;
  }
  absl::Time deadline = absl::InfiniteFuture();
  if (!options.timeout.empty()) {
    const auto timeout = ParseDurationText(options.timeout);
    if (!timeout.has_value() || *timeout < absl::ZeroDuration()) {
      context.err() << "trainyard: --timeout " << options.timeout << ": not a duration such as 90s, 10m or 1h30m\n";
      return kExitUsage;
    }
    deadline = absl::Now() + *timeout;
  }
  const auto job = GetJob(context, options.job);
  if (!job.ok()) return Fail(context, job.status());

  v1::Job last = *job;
  bool is_reached = false;
  const absl::Status status =
      FollowJob(context, job->uid(), job->namespace_(), deadline,
                {.on_job =
                     [&](const v1::Job& now) {
                       last = now;
                       is_reached = any_end ? now.state() == v1::JOB_STATE_SUCCEEDED : now.state() == wanted;
                       if (now.state() == v1::JOB_STATE_SUCCEEDED && IsOnTheWay(wanted)) is_reached = true;
                       return !is_reached && !IsTerminal(now.state());
                     },
                 .on_progress = nullptr});
  if (absl::IsDeadlineExceeded(status)) {
    context.err() << "trainyard: job " << last.name() << " is " << StateName(last.state()) << " after "
                  << options.timeout << "; it goes on\n";
    return kExitTimeout;
  }
  if (!status.ok()) return Fail(context, status);
  if (!context.quiet && !PrintAsData(context, last)) {
    context.out() << (IsTerminal(last.state()) ? EndSummary(last)
                                               : absl::StrCat("job ", last.name(), " ", StateName(last.state()), "\n"));
  }
  return is_reached ? kExitOk : kExitJobUnsuccessful;
}

}  // namespace trainyard::client
