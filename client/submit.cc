#include <ostream>

#include "absl/strings/str_cat.h"
#include "base/ids.h"
#include "client/commands.h"
#include "client/follow.h"
#include "client/pipeline.h"
#include "client/yaml_spec.h"

namespace trainyard::client {
namespace {

// What stands in a person's terminal after a submit: the job, what it comes after, its place in the queue, and why it
// waits.
std::string Acceptance(const v1::Job& job) {
  std::string text = absl::StrCat("job ", job.name(), " (", job.uid(), ") ", StateName(job.state()));
  if (const std::string after = DependenciesText(job.spec()); !after.empty()) absl::StrAppend(&text, ", after ", after);
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

// A refusal, with lines where the coordinator named fields.
int Refused(const absl::Status& status, const absl::Status& located, Context& context) {
  if (located.message() == status.message()) return Fail(context, status);
  context.err() << located.message() << "\n";
  return kExitFailedCall;
}

void SayRepeated(const std::string& request_id, bool is_one, Context& context) {
  context.err() << "trainyard: request " << request_id << " was accepted before; "
                << (is_one ? "this is the job" : "these are the jobs") << " that it made\n";
}

int SubmitOne(const SubmitOptions& options, LoadedJob& job, Context& context) {
  v1::SubmitRequest request;
  *request.mutable_spec() = job.spec;
  request.set_request_id(options.request_id.empty() ? NewUuid() : options.request_id);
  request.set_validate_only(options.dry_run == "server");
  const auto response = context.jobs->Submit(request);
  if (!response.ok()) return Refused(response.status(), LocateViolations(response.status(), job.sources), context);
  if (response->deduplicated()) SayRepeated(request.request_id(), /*is_one=*/true, context);
  if (request.validate_only()) {
    if (!PrintAsData(context, response->job()) && !context.quiet) {
      context.out() << options.file << ": the coordinator would accept it";
      if (!response->job().pending().message().empty()) context.out() << "; " << response->job().pending().message();
      context.out() << "\n";
    }
    return kExitOk;
  }
  PrintJob(context, response->job(), Acceptance(response->job()));
  return options.watch ? ShowJob(context, response->job()) : kExitOk;
}

// In one call, so that all of them exist or none does.
int SubmitAll(const SubmitOptions& options, std::vector<LoadedJob>& jobs, Context& context) {
  v1::SubmitBatchRequest request;
  std::vector<const SourceMap*> sources;
  for (const LoadedJob& job : jobs) {
    *request.add_specs() = job.spec;
    sources.push_back(&job.sources);
  }
  request.set_request_id(options.request_id.empty() ? NewUuid() : options.request_id);
  request.set_validate_only(options.dry_run == "server");
  const auto response = context.jobs->SubmitBatch(request);
  if (!response.ok()) return Refused(response.status(), LocateViolations(response.status(), sources), context);
  if (response->deduplicated()) SayRepeated(request.request_id(), /*is_one=*/false, context);
  const bool is_one_document =
      context.settings.output == OutputFormat::kJson || context.settings.output == OutputFormat::kYaml;
  if (is_one_document && !context.quiet) {
    PrintAsData(context, *response);
  } else if (request.validate_only()) {
    if (!context.quiet) {
      context.out() << options.file << ": the coordinator would accept its " << jobs.size() << " jobs\n";
    }
  } else {
    for (const v1::Job& job : response->jobs()) PrintJob(context, job, Acceptance(job));
  }
  if (!options.watch || request.validate_only() || response->jobs().empty()) return kExitOk;
  const v1::Job& last = response->jobs(response->jobs_size() - 1);
  context.err() << "watching " << last.name() << ", the last of " << response->jobs_size() << " jobs\n";
  return ShowJob(context, last);
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
  for (LoadedJob& job : *jobs) {
    if (job.spec.namespace_().empty()) job.spec.set_namespace_(context.settings.name_space);
  }
  return jobs->size() == 1 ? SubmitOne(options, jobs->front(), context) : SubmitAll(options, *jobs, context);
}

}  // namespace trainyard::client
