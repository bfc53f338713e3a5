// TY_CHECK: for what only our own bug can do (wrong shapes, broken invariants). Prints the place and the values to
// stderr and aborts, in every build. What the world can do to us is an absl::Status instead.
#pragma once

#include <sstream>
#include <string>

namespace trainyard::internal {

[[noreturn]] void CheckFailed(const char* file, int line, const std::string& message);

template <typename A, typename B>
std::string CheckMessage(const char* expression, const A& a, const B& b) {
  std::ostringstream out;
  out << expression << " (" << a << " vs " << b << ")";
  return out.str();
}

}  // namespace trainyard::internal

#define TY_CHECK(condition)                                                               \
  do {                                                                                    \
    if (!(condition)) ::trainyard::internal::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (0)

#define TY_CHECK_OP_(op, a, b)                                                                                  \
  do {                                                                                                          \
    const auto& ty_a_ = (a);                                                                                    \
    const auto& ty_b_ = (b);                                                                                    \
    if (!(ty_a_ op ty_b_))                                                                                      \
      ::trainyard::internal::CheckFailed(__FILE__, __LINE__,                                                    \
                                         ::trainyard::internal::CheckMessage(#a " " #op " " #b, ty_a_, ty_b_)); \
  } while (0)

#define TY_CHECK_EQ(a, b) TY_CHECK_OP_(==, a, b)
#define TY_CHECK_NE(a, b) TY_CHECK_OP_(!=, a, b)
#define TY_CHECK_LT(a, b) TY_CHECK_OP_(<, a, b)
#define TY_CHECK_LE(a, b) TY_CHECK_OP_(<=, a, b)
#define TY_CHECK_GT(a, b) TY_CHECK_OP_(>, a, b)
#define TY_CHECK_GE(a, b) TY_CHECK_OP_(>=, a, b)

// For a Status or StatusOr that cannot be bad here.
#define TY_CHECK_OK(expr)                                                                                \
  do {                                                                                                   \
    const auto& ty_ok_ = (expr);                                                                         \
    if (!ty_ok_.ok())                                                                                    \
      ::trainyard::internal::CheckFailed(__FILE__, __LINE__, ::trainyard::internal::StatusText(ty_ok_)); \
  } while (0)

namespace trainyard::internal {

template <typename S>
std::string StatusText(const S& status) {
  if constexpr (requires { status.status(); }) {
    return status.status().ToString();
  } else {
    return status.ToString();
  }
}

}  // namespace trainyard::internal
