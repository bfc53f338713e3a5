#include <map>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands.h"
#include "client/follow.h"

namespace trainyard::client {
namespace {

std::string FailureName(v1::FailureClass failure) {
  switch (failure) {
    case v1::FAILURE_CLASS_INFRA:
      return "infrastructure";
    case v1::FAILURE_CLASS_USER:
      return "user";
    case v1::FAILURE_CLASS_PERMANENT:
      return "permanent";
    case v1::FAILURE_CLASS_CONTROL:
      return "control";
    default:
      return "-";
  }
}

void Describe(const v1::Job& job, std::ostream& out) {
  std::vector<std::vector<std::string>> rows = {
      {"name", job.name()},
      {"uid", job.uid()},
      {"namespace", job.namespace_()},
      {"queue", absl::StrCat(job.queue(), ", priority ", job.priority())},
      {"kind", job.kind()},
      {"state", StateName(job.state())},
      {"submitted", TimeText(job.submit_time())},
      {"started", TimeText(job.start_time())},
      {"ended", TimeText(job.end_time())},
      {"step", absl::StrCat(job.progress().step(), "/", job.progress().total_steps(), ", checkpoint at ",
                            job.committed_step())},
  };
  if (job.queue_position() > 0) rows.push_back({"position", absl::StrCat(job.queue_position())});
  if (!job.pending().message().empty()) rows.push_back({"waits for", job.pending().message()});
  if (!job.exit().reason().empty()) {
    rows.push_back(
        {"exit", absl::StrCat(job.exit().reason(), job.exit().message().empty() ? "" : ": ", job.exit().message())});
  }
  for (const auto& artifact : job.result().artifacts()) rows.push_back({artifact.name(), artifact.path()});
  std::map<std::string, double> values(job.result().values().begin(), job.result().values().end());
  for (const auto& [name, value] : values) rows.push_back({name, absl::StrFormat("%.6g", value)});
  out << Table(rows);
  if (job.attempts_size() > 0) {
    std::vector<std::vector<std::string>> attempts = {
        {"ATTEMPT", "STATE", "FROM STEP", "STARTED", "ENDED", "WORKERS", "EXIT"}};
    for (const auto& attempt : job.attempts()) {
      std::string places;
      for (const auto& place : attempt.places()) {
        absl::StrAppend(&places, places.empty() ? "" : ",", place.host().empty() ? place.worker_id() : place.host(),
                        ":", place.slot());
      }
      std::string state = v1::AttemptState_Name(attempt.state());
      attempts.push_back(
          {absl::StrCat(attempt.number()), state.substr(state.rfind('_') + 1), absl::StrCat(attempt.restored_step()),
           TimeText(attempt.start_time()), TimeText(attempt.end_time()), places,
           attempt.exit().reason().empty()
               ? "-"
               : absl::StrCat(attempt.exit().reason(), " (", FailureName(attempt.exit().failure_class()), ")")});
    }
    out << "\n" << Table(attempts);
  }
  for (const std::string& sample : job.result().samples()) out << "\nsample: " << sample << "\n";
}

}  // namespace

int RunGet(const std::string& name, Context& context) {
  const auto job = GetJob(context, name);
  if (!job.ok()) return Fail(context, job.status());
  if (context.quiet) {
    context.out() << job->uid() << "\n";
  } else if (context.settings.output == OutputFormat::kName) {
    context.out() << job->name() << "\n";
  } else if (!PrintAsData(context, *job)) {
    Describe(*job, context.out());
  }
  return kExitOk;
}

}  // namespace trainyard::client
