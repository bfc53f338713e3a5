#include "proto/spec/field_errors.h"

#include <algorithm>

#include "absl/strings/str_join.h"

namespace trainyard::spec {

std::string FieldErrors::PathOf(absl::string_view name) const {
  if (path_.empty()) return std::string(name);
  if (name.empty()) return path_;
  return absl::StrCat(path_, ".", name);
}

void FieldErrors::Add(absl::string_view name, absl::string_view text) {
  violations_->push_back({PathOf(name), std::string(text)});
}

bool FieldErrors::HasProblem(absl::string_view name) const {
  return std::any_of(violations_->begin(), violations_->end(),
                     [path = PathOf(name)](const FieldViolation& violation) { return violation.path == path; });
}

double FieldErrors::InRangeAbove(absl::string_view name, double value, double above, double highest) {
  if (value > above && value <= highest) return value;
  Add(name, absl::StrCat(value, " not in (", above, ", ", highest, "]"));
  return highest;
}

double FieldErrors::InRangeBelow(absl::string_view name, double value, double lowest, double below) {
  if (value >= lowest && value < below) return value;
  Add(name, absl::StrCat(value, " not in [", lowest, ", ", below, ")"));
  return lowest;
}

absl::Status FieldErrors::ToStatus() const {
  if (violations_->empty()) return absl::OkStatus();
  const auto line = [](std::string* out, const FieldViolation& violation) {
    absl::StrAppend(out, violation.path.empty() ? "spec" : violation.path, ": ", violation.text);
  };
  absl::Status status = absl::InvalidArgumentError(absl::StrJoin(*violations_, "; ", line));
  SetFieldViolations(&status, *violations_);
  return status;
}

}  // namespace trainyard::spec
