// List: the filter language and the page tokens.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/core/core.h"

namespace trainyard::coordinator {

// Terms joined by " AND ", each field=value or field!=value. Fields: state, queue, kind, name, namespace, parent (a
// uid), generation, label.<key>.
class JobFilter {
 public:
  // InvalidArgument names the bad term.
  static absl::StatusOr<JobFilter> Parse(const std::string& text);
  bool Matches(const v1::Job& job) const;
  // Does it ask for trials of some parent or generation?
  bool WantsTrials() const;

 private:
  struct Term {
    std::string field, value;
    bool is_equal = true;
  };
  std::vector<Term> terms_;
};

// Newest submit first; trials only if the filter or the request asks for them. Bad page_size, page_token or filter:
// InvalidArgument.
absl::StatusOr<v1::ListResponse> ListJobs(const Core& core, const v1::ListRequest& request, Now now);

}  // namespace trainyard::coordinator
