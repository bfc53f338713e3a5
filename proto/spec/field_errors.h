// Collects every problem of a spec, each under the path of its field, while the spec is read.
//
//   FieldErrors errors;
//   FieldErrors retry = errors.In("retry");
//   options.limit = retry.InRange("limit", spec.limit(), 0, 10);   // "retry.limit: 11 not in [0, 10]"
//   TY_RETURN_IF_ERROR(errors.ToStatus());
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "proto/rpc/error_details.h"

namespace trainyard::spec {

class FieldErrors {
 public:
  explicit FieldErrors(absl::string_view path = "") : path_(path), violations_(&own_) {}
  FieldErrors(const FieldErrors&) = delete;
  FieldErrors& operator=(const FieldErrors&) = delete;

  // A view one level down that adds to this object's list; must not outlive it.
  FieldErrors In(absl::string_view name) { return FieldErrors(PathOf(name), violations_); }

  // `name` empty means the message itself.
  void Add(absl::string_view name, absl::string_view text);

  // Each returns `value` if it is allowed; otherwise adds a problem and returns `lowest`, a value that other checks can
  // go on with. NaN is never in range.
  template <typename T>
  T InRange(absl::string_view name, T value, std::type_identity_t<T> lowest, std::type_identity_t<T> highest) {
    if (value >= lowest && value <= highest) return value;
    Add(name, absl::StrCat(Text(value), " not in [", Text(lowest), ", ", Text(highest), "]"));
    return lowest;
  }

  // (above, highest]; stands in `highest` for a bad value.
  double InRangeAbove(absl::string_view name, double value, double above, double highest);

  // [lowest, below).
  double InRangeBelow(absl::string_view name, double value, double lowest, double below);

  const std::vector<FieldViolation>& violations() const { return *violations_; }
  // Whether the field is among the problems: what stands in for its value then tells nothing about other fields.
  bool HasProblem(absl::string_view name) const;

  // InvalidArgument with all problems in its text and, for programs, as field violations (proto/rpc/error_details.h).
  absl::Status ToStatus() const;

 private:
  FieldErrors(std::string path, std::vector<FieldViolation>* violations)
      : path_(std::move(path)), violations_(violations) {}

  std::string PathOf(absl::string_view name) const;

  template <typename T>
  static std::string Text(T value) {
    if constexpr (std::is_same_v<T, absl::Duration>) {
      return absl::FormatDuration(value);
    } else {
      return absl::StrCat(value);
    }
  }

  const std::string path_;
  std::vector<FieldViolation> own_;
  std::vector<FieldViolation>* const violations_;
};

}  // namespace trainyard::spec
