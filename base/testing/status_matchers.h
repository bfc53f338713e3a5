// EXPECT_OK(expr), ASSERT_OK(expr), ASSERT_OK_AND_ASSIGN(auto x, expr) and StatusIs(code, message matcher).
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status_macros.h"
#include "gmock/gmock.h"

namespace trainyard {

inline const absl::Status& GetStatus(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& status) {
  return status.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).ok();
}

MATCHER_P2(StatusIs, code, message, "has the given code and a matching message") {
  *result_listener << GetStatus(arg).ToString();
  return GetStatus(arg).code() == code && ::testing::Value(std::string(GetStatus(arg).message()), message);
}

}  // namespace trainyard

#define EXPECT_OK(expr) EXPECT_THAT(expr, ::trainyard::IsOk())
#define ASSERT_OK(expr) ASSERT_THAT(expr, ::trainyard::IsOk())
#define ASSERT_OK_AND_ASSIGN(lhs, expr) ASSERT_OK_AND_ASSIGN_IMPL_(TY_CONCAT_(ty_statusor_, __LINE__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_IMPL_(statusor, lhs, expr) \
  auto statusor = (expr);                               \
  ASSERT_OK(statusor);                                  \
  lhs = std::move(statusor).value()
