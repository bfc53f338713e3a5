#include <algorithm>
#include <map>
#include <ostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/commands.h"
#include "client/follow.h"
#include "client/pipeline.h"
#include "client/trials.h"

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

void Describe(const v1::Job& job, absl::Time now, std::ostream& out) {
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
  if (job.state() == v1::JOB_STATE_RUNNING && !job.progress().section().empty()) {
    const std::string trials = job.progress().section() == "trials" ? NewestGenerationText(job) : "";
    rows.push_back({"doing", trials.empty() ? job.progress().section() : trials});
  }
  if (job.queue_position() > 0) rows.push_back({"position", absl::StrCat(job.queue_position())});
  if (!job.pending().message().empty()) rows.push_back({"waits for", job.pending().message()});
  if (const std::string after = DependenciesText(job.spec()); !after.empty()) rows.push_back({"after", after});
  if (!job.parent_uid().empty()) {
    rows.push_back({"trial of", absl::StrCat(job.parent_uid(), ", number ", job.trial_index(), " of generation ",
                                             job.generation())});
  }
  if (const std::string trials = AllGenerationsText(job); !trials.empty()) rows.push_back({"trials", trials});
  if (!job.exit().reason().empty()) {
    rows.push_back(
        {"exit", absl::StrCat(job.exit().reason(), job.exit().message().empty() ? "" : ": ", job.exit().message())});
  }
  for (const auto& artifact : job.result().artifacts()) rows.push_back({artifact.name(), artifact.path()});
  std::map<std::string, double> values(job.result().values().begin(), job.result().values().end());
  for (const auto& [name, value] : values) rows.push_back({name, absl::StrFormat("%.6g", value)});
  std::vector<std::string> documents;
  for (const auto& [name, text] : job.result().documents()) documents.push_back(name);
  std::sort(documents.begin(), documents.end());
  if (!documents.empty()) rows.push_back({"documents", absl::StrJoin(documents, ", ")});
  out << Table(rows);
  if (!job.generations().empty()) {
    // A search may have thousands; --trials has them all.
    constexpr int kShown = 10;
    v1::Job newest;
    const int skipped = std::max(0, job.generations_size() - kShown);
    for (int i = skipped; i < job.generations_size(); ++i) *newest.add_generations() = job.generations(i);
    out << "\n" << GenerationsTable(newest, now);
    if (skipped > 0) out << skipped << " earlier ones: trainyard get " << job.name() << " --trials\n";
  }
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

// As it is: for a program that reads JSON.
int PrintDocument(const v1::Job& job, const std::string& name, Context& context) {
  const auto& documents = job.result().documents();
  const auto found = documents.find(name);
  if (found != documents.end()) {
    context.out() << found->second << (absl::EndsWith(found->second, "\n") ? "" : "\n");
    return kExitOk;
  }
  std::vector<std::string> names;
  for (const auto& [other, text] : documents) names.push_back(other);
  std::sort(names.begin(), names.end());
  context.err() << "trainyard: the result of job " << job.name() << " has no document '" << name << "'; "
                << (!names.empty()            ? absl::StrCat("it has ", absl::StrJoin(names, ", "))
                    : IsTerminal(job.state()) ? "it has none"
                                              : absl::StrCat("the job is ", StateName(job.state())))
                << "\n";
  return kExitNotFound;
}

}  // namespace

int RunGet(const GetOptions& options, Context& context) {
  const auto job = GetJob(context, options.job);
  if (!job.ok()) return Fail(context, job.status());
  if (!options.document.empty()) return PrintDocument(*job, options.document, context);
  if (options.trials || options.generation > 0) return ShowTrials(*job, options.generation, context);
  if (context.quiet) {
    context.out() << job->uid() << "\n";
  } else if (context.settings.output == OutputFormat::kName) {
    context.out() << job->name() << "\n";
  } else if (!PrintAsData(context, *job)) {
    Describe(*job, context.env.clock->Now(), context.out());
  }
  return kExitOk;
}

}  // namespace trainyard::client
