#include "client/trials.h"

#include <algorithm>
#include <map>
#include <ostream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/duration_text.h"

namespace trainyard::client {
namespace {

std::string CountsText(const v1::GenerationSummary& counts) {
  std::string text = absl::StrCat(counts.succeeded_count() + counts.failed_count(), " of ", counts.total_count(),
                                  counts.total_count() == 1 ? " trial done" : " trials done");
  if (counts.running_count() > 0) absl::StrAppend(&text, ", ", counts.running_count(), " running");
  if (counts.failed_count() > 0) absl::StrAppend(&text, ", ", counts.failed_count(), " failed");
  return text;
}

std::string TimeBetween(const google::protobuf::Timestamp& begin, const google::protobuf::Timestamp& end,
                        absl::Time now) {
  if (begin.seconds() == 0) return "-";
  return RoughDuration((end.seconds() == 0 ? now : ToTime(end)) - ToTime(begin));
}

std::string ValuesText(const v1::JobResult& result) {
  const std::map<std::string, double> values(result.values().begin(), result.values().end());
  std::string text;
  for (const auto& [name, value] : values) {
    absl::StrAppend(&text, text.empty() ? "" : " ", name, "=", absl::StrFormat("%.6g", value));
  }
  return text;
}

int ShowGeneration(const v1::Job& parent, int64_t generation, Context& context) {
  v1::ListRequest request;
  request.set_namespace_(parent.namespace_());
  request.set_filter(absl::StrCat("parent=", parent.uid(), " AND generation=", generation));
  request.set_include_trials(true);
  absl::StatusOr<v1::ListResponse> trials = ListAll(context, request, /*limit=*/0);
  if (!trials.ok()) return Fail(context, trials.status());
  if (trials->jobs().empty()) {
    context.err() << "trainyard: job " << parent.name() << " has no generation " << generation;
    if (!parent.generations().empty()) {
      context.err() << "; its newest is " << parent.generations(parent.generations_size() - 1).number();
    }
    context.err() << "\n";
    return kExitNotFound;
  }
  std::sort(trials->mutable_jobs()->begin(), trials->mutable_jobs()->end(),
            [](const v1::Job& a, const v1::Job& b) { return a.trial_index() < b.trial_index(); });
  if (context.quiet) {
    for (const v1::Job& trial : trials->jobs()) context.out() << trial.uid() << "\n";
    return kExitOk;
  }
  if (PrintAsData(context, *trials)) return kExitOk;
  std::vector<std::vector<std::string>> rows = {{"TRIAL", "STATE", "KIND", "TIME", "UID", "RESULT"}};
  for (const v1::Job& trial : trials->jobs()) {
    std::string told = trial.state() == v1::JOB_STATE_SUCCEEDED ? ValuesText(trial.result())
                       : IsTerminal(trial.state())              ? trial.exit().reason()
                                                                : trial.pending().message();
    rows.push_back({absl::StrCat(trial.trial_index()), StateName(trial.state()), trial.kind(),
                    TimeBetween(trial.start_time(), trial.end_time(), context.env.clock->Now()), trial.uid(),
                    told.empty() ? "-" : told});
  }
  context.out() << Table(rows);
  return kExitOk;
}

}  // namespace

std::string NewestGenerationText(const v1::Job& job) {
  if (job.generations().empty()) return "";
  const v1::GenerationSummary& newest = job.generations(job.generations_size() - 1);
  return absl::StrCat("generation ", newest.number(),
                      newest.label().empty() ? "" : absl::StrCat(" (", newest.label(), ")"), ": ", CountsText(newest));
}

std::string AllGenerationsText(const v1::Job& job) {
  if (job.generations().empty()) return "";
  v1::GenerationSummary sum;
  for (const v1::GenerationSummary& one : job.generations()) {
    sum.set_total_count(sum.total_count() + one.total_count());
    sum.set_running_count(sum.running_count() + one.running_count());
    sum.set_succeeded_count(sum.succeeded_count() + one.succeeded_count());
    sum.set_failed_count(sum.failed_count() + one.failed_count());
  }
  const int count = job.generations_size();
  return absl::StrCat(count, count == 1 ? " generation: " : " generations: ", CountsText(sum));
}

int OpenTrials(const v1::Job& job) {
  int open = 0;
  for (const v1::GenerationSummary& one : job.generations()) open += one.waiting_count() + one.running_count();
  return open;
}

std::string GenerationsTable(const v1::Job& job, absl::Time now) {
  std::vector<std::vector<std::string>> rows = {
      {"GENERATION", "LABEL", "TRIALS", "WAITING", "RUNNING", "OK", "FAILED", "TIME"}};
  for (const v1::GenerationSummary& one : job.generations()) {
    rows.push_back({absl::StrCat(one.number()), one.label().empty() ? "-" : one.label(),
                    absl::StrCat(one.total_count()), absl::StrCat(one.waiting_count()),
                    absl::StrCat(one.running_count()), absl::StrCat(one.succeeded_count()),
                    absl::StrCat(one.failed_count()), TimeBetween(one.create_time(), one.end_time(), now)});
  }
  return Table(rows);
}

int ShowTrials(const v1::Job& job, int64_t generation, Context& context) {
  if (generation > 0) return ShowGeneration(job, generation, context);
  // The job without what has nothing to do with its trials.
  v1::Job told;
  told.set_uid(job.uid());
  told.set_name(job.name());
  told.set_namespace_(job.namespace_());
  told.set_kind(job.kind());
  told.set_state(job.state());
  *told.mutable_generations() = job.generations();
  if (PrintAsData(context, told)) return kExitOk;
  if (job.generations().empty()) {
    context.err() << "Job " << job.name() << " has asked for no trials.\n";
    return kExitOk;
  }
  context.out() << GenerationsTable(job, context.env.clock->Now());
  return kExitOk;
}

}  // namespace trainyard::client
