#include "coordinator/api/list_jobs.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "coordinator/core/times.h"
#include "coordinator/core/transitions.h"
#include "proto/rpc/error_details.h"

namespace trainyard::coordinator {
namespace {

constexpr int kDefaultPage = 50;  // CP-46
constexpr int kMaxPage = 1000;
constexpr char kLabelPrefix[] = "label.";
// The answer must fit one message (CP-54).
constexpr size_t kMaxAnswerBytes = 3 << 20;

absl::Status BadField(const std::string& field, const std::string& text) {
  absl::Status status = absl::InvalidArgumentError(absl::StrCat(field, ": ", text));
  SetFieldViolations(&status, {{field, text}});
  return status;
}

// What a token is good for: the same namespace and filter, with or without trials.
std::string Scope(const v1::ListRequest& request) {
  return absl::StrCat(request.namespace_(), request.include_trials() ? "\ntrials\n" : "\n", request.filter());
}

// "submit time in ns \n uid \n scope" of the last job sent, in base64.
std::string MakeToken(absl::Time time, const std::string& uid, const v1::ListRequest& request) {
  std::string token;
  absl::WebSafeBase64Escape(absl::StrCat(absl::ToUnixNanos(time), "\n", uid, "\n", Scope(request)), &token);
  return token;
}

absl::StatusOr<std::pair<absl::Time, std::string>> ReadToken(const v1::ListRequest& request) {
  std::string plain;
  const bool is_base64 = absl::WebSafeBase64Unescape(request.page_token(), &plain);
  const std::vector<std::string> fields = absl::StrSplit(plain, absl::MaxSplits('\n', 2));
  int64_t nanos = 0;
  if (!is_base64 || fields.size() != 3 || !absl::SimpleAtoi(fields[0], &nanos)) {
    return BadField("page_token", "not a token of this service");
  }
  if (fields[2] != Scope(request)) return BadField("page_token", "made for another namespace or filter");
  return std::make_pair(absl::FromUnixNanos(nanos), fields[1]);
}

}  // namespace

absl::StatusOr<JobFilter> JobFilter::Parse(const std::string& text) {
  JobFilter filter;
  if (text.empty()) return filter;
  for (const absl::string_view part : absl::StrSplit(text, " AND ")) {
    const absl::string_view trimmed = absl::StripAsciiWhitespace(part);
    const size_t equals = trimmed.find('=');
    if (equals == absl::string_view::npos || equals == 0) {
      return BadField("filter", absl::StrCat("term \"", trimmed, "\" is not field=value or field!=value"));
    }
    Term term;
    term.is_equal = trimmed[equals - 1] != '!';
    term.field = std::string(absl::StripAsciiWhitespace(trimmed.substr(0, term.is_equal ? equals : equals - 1)));
    term.value = std::string(absl::StripAsciiWhitespace(trimmed.substr(equals + 1)));
    const bool is_known = term.field == "state" || term.field == "queue" || term.field == "kind" ||
                          term.field == "name" || term.field == "namespace" || term.field == "parent" ||
                          term.field == "generation" ||
                          (absl::StartsWith(term.field, kLabelPrefix) && term.field.size() > sizeof(kLabelPrefix) - 1);
    if (!is_known) {
      return BadField(
          "filter", absl::StrCat("unknown field \"", term.field,
                                 "\"; known are state, queue, kind, name, namespace, parent, generation, label.<key>"));
    }
    int64_t generation = 0;
    if (term.field == "generation" && !absl::SimpleAtoi(term.value, &generation)) {
      return BadField("filter", absl::StrCat("generation \"", term.value, "\" is not a number"));
    }
    v1::JobState state;
    if (term.field == "state" && !v1::JobState_Parse(absl::StrCat("JOB_STATE_", term.value), &state)) {
      return BadField("filter", absl::StrCat("unknown state \"", term.value, "\""));
    }
    filter.terms_.push_back(std::move(term));
  }
  return filter;
}

bool JobFilter::Matches(const v1::Job& job) const {
  return std::all_of(terms_.begin(), terms_.end(), [&](const Term& term) {
    std::string value;
    if (term.field == "state") value = ShortName(job.state());
    if (term.field == "queue") value = job.queue();
    if (term.field == "kind") value = job.kind();
    if (term.field == "name") value = job.name();
    if (term.field == "namespace") value = job.namespace_();
    if (term.field == "parent") value = job.parent_uid();
    if (term.field == "generation" && !job.parent_uid().empty()) value = absl::StrCat(job.generation());
    if (absl::StartsWith(term.field, kLabelPrefix)) {
      const auto label = job.spec().labels().find(term.field.substr(sizeof(kLabelPrefix) - 1));
      if (label != job.spec().labels().end()) value = label->second;
    }
    return (value == term.value) == term.is_equal;
  });
}

bool JobFilter::WantsTrials() const {
  return std::any_of(terms_.begin(), terms_.end(), [](const Term& term) {
    return term.is_equal && !term.value.empty() && (term.field == "parent" || term.field == "generation");
  });
}

absl::StatusOr<v1::ListResponse> ListJobs(const Core& core, const v1::ListRequest& request, Now now) {
  if (request.page_size() < 0) return BadField("page_size", absl::StrCat(request.page_size(), " is negative"));
  const int limit = request.page_size() == 0 ? kDefaultPage : std::min(request.page_size(), kMaxPage);
  TY_ASSIGN_OR_RETURN(const JobFilter filter, JobFilter::Parse(request.filter()));
  const bool with_trials = request.include_trials() || filter.WantsTrials();
  const auto& by_time = core.by_time();
  auto it = by_time.end();
  if (!request.page_token().empty()) {
    TY_ASSIGN_OR_RETURN(const auto last, ReadToken(request));
    it = by_time.lower_bound(last);
  }
  const auto capacities = core.Capacities();
  v1::ListResponse response;
  response.set_revision(core.revision());
  size_t bytes = 0;
  while (it != by_time.begin()) {
    --it;
    const v1::Job& job = core.Record(it->second)->job();
    if (!request.namespace_().empty() && job.namespace_() != request.namespace_()) continue;
    if (!with_trials && !job.parent_uid().empty()) continue;
    if (!filter.Matches(job)) continue;
    if (response.jobs_size() == limit || bytes > kMaxAnswerBytes) {
      // There is at least this one more.
      const v1::Job& last = response.jobs(response.jobs_size() - 1);
      response.set_next_page_token(MakeToken(FromProto(last.submit_time()), last.uid(), request));
      break;
    }
    *response.add_jobs() = core.View(it->second, now, capacities);
    bytes += response.jobs(response.jobs_size() - 1).ByteSizeLong();
  }
  return response;
}

}  // namespace trainyard::coordinator
