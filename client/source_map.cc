#include "client/source_map.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

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
    const std::string place = problem.location.ToString();
    absl::StrAppend(out, place, place.empty() ? "" : ": ", problem.path, problem.path.empty() ? "" : ": ",
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

absl::Status LocateViolations(const absl::Status& status, const std::vector<const SourceMap*>& maps) {
  constexpr absl::string_view kPrefix = "jobs[";
  std::vector<SpecProblem> problems;
  for (const FieldViolation& violation : GetFieldViolations(status)) {
    SpecProblem problem;
    problem.text = violation.text;
    absl::string_view path = violation.path;
    size_t job = 0;
    const size_t close = path.find(']');
    if (absl::StartsWith(path, kPrefix) && close != absl::string_view::npos &&
        absl::SimpleAtoi(path.substr(kPrefix.size(), close - kPrefix.size()), &job) && job < maps.size()) {
      path.remove_prefix(close + 1);
      absl::ConsumePrefix(&path, ".");
      problem.location = maps[job]->Find(std::string(path));
    }
    problem.path = std::string(path);
    problems.push_back(std::move(problem));
  }
  return problems.empty() ? status : ProblemsToStatus(std::move(problems));
}

}  // namespace trainyard::client
