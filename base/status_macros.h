// Early return on a bad absl::Status, in the form every file of the project uses.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the enclosing function if `expr` (a Status) is not OK.
#define TY_RETURN_IF_ERROR(expr)                                               \
  do {                                                                         \
    if (absl::Status ty_status_ = (expr); !ty_status_.ok()) return ty_status_; \
  } while (0)

#define TY_CONCAT_INNER_(a, b) a##b
#define TY_CONCAT_(a, b) TY_CONCAT_INNER_(a, b)

// TY_ASSIGN_OR_RETURN(auto x, F()); moves the value of a StatusOr into `lhs`, or returns its status.
#define TY_ASSIGN_OR_RETURN(lhs, expr) TY_ASSIGN_OR_RETURN_IMPL_(TY_CONCAT_(ty_statusor_, __LINE__), lhs, expr)
#define TY_ASSIGN_OR_RETURN_IMPL_(statusor, lhs, expr)     \
  auto statusor = (expr);                                  \
  if (!statusor.ok()) return std::move(statusor).status(); \
  lhs = std::move(statusor).value()

namespace trainyard {

// `status` with "context: " put before its message; OK stays OK. For adding a name or a number on the way up.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

}  // namespace trainyard
