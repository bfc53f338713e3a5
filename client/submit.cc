#include <ostream>

#include "absl/strings/str_cat.h"
#include "base/ids.h"
#include "client/commands.h"
#include "client/follow.h"
#include "client/yaml_spec.h"

namespace trainyard::client {
namespace {

// What stands in a person's terminal after a submit: the job, its place in the queue, and why it waits.
std::string Acceptance(const v1::Job& job) {
  std::string text = absl::StrCat("job ", job.name(), " (", job.uid(), ") ", StateName(job.state()));
  if (job.queue_position() > 0) absl::StrAppend(&text, ", position ", job.queue_position(), " in queue ", job.queue());
  if (!job.pending().message().empty()) absl::StrAppend(&text, ": ", job.pending().message());
  return text;
}

void PrintJob(const Context& context, const v1::Job& job, const std::string& text) {
  if (context.quiet) {
    context.out() << job.uid() << "\n";
  } else if (context.settings.output == OutputFormat::kName) {
    context.out() << job.name() << "\n";
  } else if (!PrintAsData(context, job)) {
    context.out() << text << "\n";
  }
}

int CheckOnly(const std::vector<LoadedJob>& jobs, const SubmitOptions& options, const Context& context) {
  for (const LoadedJob& job : jobs) {
    if (!PrintAsData(context, job.spec) && !context.quiet) {
      context.out() << options.file << ": job " << (job.spec.name().empty() ? "(no name)" : job.spec.name())
                    << " is valid\n";
    }
  }
  return kExitOk;
}

}  // namespace

int RunSubmit(const SubmitOptions& options, Context& context) {
  auto jobs = LoadJobFile(options.file, options.overrides);
  if (absl::IsNotFound(jobs.status())) {
    context.err() << "trainyard: " << jobs.status().message() << "\n";
    return kExitUsage;
  }
  if (!jobs.ok()) {
    // One problem a line, each with its own place.
    context.err() << jobs.status().message() << "\n";
    return kExitUsage;
  }
  if (options.dry_run == "client") return CheckOnly(*jobs, options, context);
  if (jobs->size() > 1 && (options.watch || !options.request_id.empty())) {
    context.err() << "trainyard: " << options.file << " has " << jobs->size()
                  << " jobs; --watch and --request-id are for one\n";
    return kExitUsage;
  }
  int code = kExitOk;
  for (LoadedJob& job : *jobs) {
    if (job.spec.namespace_().empty()) job.spec.set_namespace_(context.settings.name_space);
    v1::SubmitRequest request;
    *request.mutable_spec() = job.spec;
    request.set_request_id(options.request_id.empty() ? NewUuid() : options.request_id);
    request.set_validate_only(options.dry_run == "server");
    const auto response = context.jobs->Submit(request);
    if (!response.ok()) {
      const absl::Status located = LocateViolations(response.status(), job.sources);
      if (located.message() == response.status().message()) {
        code = Fail(context, located);
      } else {
        context.err() << located.message() << "\n";
        code = kExitFailedCall;
      }
      continue;
    }
    if (response->deduplicated()) {
      context.err() << "trainyard: request " << request.request_id()
                    << " was accepted before; this is the job that it made\n";
    }
    if (request.validate_only()) {
      if (!PrintAsData(context, response->job()) && !context.quiet) {
        context.out() << options.file << ": the coordinator would accept it";
        if (!response->job().pending().message().empty()) context.out() << "; " << response->job().pending().message();
        context.out() << "\n";
      }
      continue;
    }
    PrintJob(context, response->job(), Acceptance(response->job()));
    if (options.watch) return ShowJob(context, response->job());
  }
  return code;
}

}  // namespace trainyard::client
