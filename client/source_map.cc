#include "client/source_map.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace trainyard::client {

std::string SourceLocation::ToString() const {
  if (line == 0) return origin;
  return absl::StrCat(origin, ":", line, ":", column);
}

SourceLocation SourceMap::Find(std::string path) const {
  for (;;) {
    const auto found = locations_.find(path);
    if (found != locations_.end()) return found->second;
    if (path.empty()) return {};
    const size_t cut = path.find_last_of(".[");
    path.resize(cut == std::string::npos ? 0 : cut);
  }
}

absl::Status ProblemsToStatus(std::vector<SpecProblem> problems) {
  if (problems.empty()) return absl::OkStatus();
  std::stable_sort(problems.begin(), problems.end(), [](const SpecProblem& a, const SpecProblem& b) {
    return std::make_pair(a.location.line, a.location.column) < std::make_pair(b.location.line, b.location.column);
  });
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n", [](std::string* out, const SpecProblem& problem) {
    absl::StrAppend(out, problem.location.ToString(), ": ", problem.path, problem.path.empty() ? "" : ": ",
                    problem.text);
  }));
}

absl::Status LocateViolations(const absl::Status& status, const SourceMap& map) {
  std::vector<SpecProblem> problems;
  for (const FieldViolation& violation : GetFieldViolations(status)) {
    problems.push_back({map.Find(violation.path), violation.path, violation.text});
  }
  return problems.empty() ? status : ProblemsToStatus(std::move(problems));
}

}  // namespace trainyard::client
