#include <ostream>

#include "absl/strings/str_cat.h"
#include "base/ids.h"
#include "client/commands.h"
#include "client/trials.h"

namespace trainyard::client {
namespace {

absl::StatusOr<v1::Job> Call(JobAction action, const v1::JobActionRequest& request, JobsClient& jobs) {
  switch (action) {
    case JobAction::kCancel:
      return jobs.Cancel(request);
    case JobAction::kSuspend:
      return jobs.Suspend(request);
    case JobAction::kResume:
      break;
  }
  return jobs.Resume(request);
}

}  // namespace

int RunAction(JobAction action, const ActionOptions& options, Context& context) {
  if (options.jobs.size() > 1 && !options.request_id.empty()) {
    context.err() << "trainyard: --request-id is for one job\n";
    return kExitUsage;
  }
  int code = kExitOk;
  for (const std::string& name : options.jobs) {
    v1::JobActionRequest request;
    request.set_namespace_(context.settings.name_space);
    request.set_job(name);
    request.set_request_id(options.request_id.empty() ? NewUuid() : options.request_id);
    const auto job = Call(action, request, *context.jobs);
    if (!job.ok()) {
      code = Fail(context, job.status());
    } else if (context.quiet) {
      context.out() << job->uid() << "\n";
    } else if (context.settings.output == OutputFormat::kName) {
      context.out() << job->name() << "\n";
    } else if (!PrintAsData(context, *job)) {
      context.out() << "job " << job->name() << " " << StateName(job->state());
      if (const int open = OpenTrials(*job); action == JobAction::kCancel && open > 0) {
        context.out() << ", and so " << (open == 1 ? "is its trial" : absl::StrCat("are its ", open, " trials"))
                      << " that had not ended";
      }
      context.out() << "\n";
    }
  }
  return code;
}

}  // namespace trainyard::client
