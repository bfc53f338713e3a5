#include <algorithm>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "client/commands.h"
#include "client/duration_text.h"

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

}  // namespace

int RunList(const ListOptions& options, Context& context) {
  v1::ListRequest request;
  if (!options.all_namespaces) request.set_namespace_(context.settings.name_space);
  request.set_filter(options.filter);
  v1::ListResponse all;
  const auto is_full = [&] { return options.limit > 0 && all.jobs_size() >= options.limit; };
  do {
    request.set_page_size(options.limit > 0 ? std::min(1000, options.limit - all.jobs_size()) : 1000);
    const auto page = context.jobs->List(request);
    if (!page.ok()) return Fail(context, page.status());
    all.mutable_jobs()->MergeFrom(page->jobs());
    all.set_revision(page->revision());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty() && !is_full());
  all.set_next_page_token(request.page_token());

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
  if (wide) rows[0].insert(rows[0].end() - 1, {"UID", "NAMESPACE", "QUEUE", "ATTEMPTS", "CHECKPOINT"});
  for (const auto& job : all.jobs()) rows.push_back(Row(job, wide, context.env.clock->Now()));
  if (rows.size() > 1) context.out() << Table(rows);
  if (rows.size() == 1) context.err() << "No jobs.\n";
  if (!request.page_token().empty()) context.err() << "There are more; raise --limit.\n";
  return kExitOk;
}

}  // namespace trainyard::client
