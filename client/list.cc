#include <algorithm>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/commands.h"
#include "client/duration_text.h"
#include "client/follow.h"

namespace trainyard::client {
namespace {

std::vector<std::string> Row(const v1::Job& job, bool wide, absl::Time now) {
  std::string step = "-";
  if (job.progress().total_steps() > 0) step = absl::StrCat(job.progress().step(), "/", job.progress().total_steps());
  const std::string age = job.has_submit_time() ? RoughDuration(now - ToTime(job.submit_time())) : "-";
  const std::string& why = job.pending().message().empty() ? job.exit().reason() : job.pending().message();
  std::vector<std::string> row = {job.name(), StateName(job.state()), job.kind(), step, absl::StrCat(job.priority()),
                                  age,        why.empty() ? "-" : why};
  if (wide) {
    row.insert(row.end() - 1, {job.uid(), job.namespace_(), job.queue(), absl::StrCat(job.attempts_size()),
                               absl::StrCat(job.committed_step())});
  }
  return row;
}

// "3/12": number 12 of generation 3.
std::string TrialText(const v1::Job& job) {
  return job.parent_uid().empty() ? "-" : absl::StrCat(job.generation(), "/", job.trial_index());
}

}  // namespace

absl::StatusOr<v1::ListResponse> ListAll(Context& context, v1::ListRequest request, int limit) {
  v1::ListResponse all;
  const auto is_full = [&] { return limit > 0 && all.jobs_size() >= limit; };
  do {
    request.set_page_size(limit > 0 ? std::min(1000, limit - all.jobs_size()) : 1000);
    TY_ASSIGN_OR_RETURN(const v1::ListResponse page, context.jobs->List(request));
    all.mutable_jobs()->MergeFrom(page.jobs());
    all.set_revision(page.revision());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() && !is_full());
  all.set_next_page_token(request.page_token());
  return all;
}

int RunList(const ListOptions& options, Context& context) {
  v1::ListRequest request;
  if (!options.all_namespaces) request.set_namespace_(context.settings.name_space);
  request.set_filter(options.filter);
  request.set_include_trials(options.trials);
  if (!options.parent.empty()) {
    // A name means its newest job, as everywhere.
    const auto parent = GetJob(context, options.parent);
    if (!parent.ok()) return Fail(context, parent.status());
    request.set_filter(absl::StrCat("parent=", parent->uid(), options.filter.empty() ? "" : " AND ", options.filter));
    request.set_include_trials(true);
  }
  const absl::StatusOr<v1::ListResponse> listed = ListAll(context, request, options.limit);
  if (!listed.ok()) return Fail(context, listed.status());
  const v1::ListResponse& all = *listed;

  const OutputFormat format = context.settings.output;
  if (context.quiet || format == OutputFormat::kName) {
    for (const auto& job : all.jobs()) context.out() << (context.quiet ? job.uid() : job.name()) << "\n";
    return kExitOk;
  }
  if (format == OutputFormat::kJsonl) {
    for (const auto& job : all.jobs()) PrintAsData(context, job);
    return kExitOk;
  }
  if (PrintAsData(context, all)) return kExitOk;
  const bool wide = format == OutputFormat::kWide;
  std::vector<std::vector<std::string>> rows = {{"NAME", "STATE", "KIND", "STEP", "PRIORITY", "AGE", "REASON"}};
  if (request.include_trials()) rows[0].insert(rows[0].begin() + 1, "TRIAL");
  if (wide) rows[0].insert(rows[0].end() - 1, {"UID", "NAMESPACE", "QUEUE", "ATTEMPTS", "CHECKPOINT"});
  for (const auto& job : all.jobs()) {
    rows.push_back(Row(job, wide, context.env.clock->Now()));
    if (!request.include_trials()) continue;
    rows.back().insert(rows.back().begin() + 1, TrialText(job));
  }
  if (rows.size() > 1) context.out() << Table(rows);
  if (rows.size() == 1) context.err() << "No jobs.\n";
  if (!all.next_page_token().empty()) context.err() << "There are more; raise --limit.\n";
  return kExitOk;
}

}  // namespace trainyard::client
