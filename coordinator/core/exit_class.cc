#include "coordinator/core/exit_class.h"

#include <algorithm>
#include <csignal>
#include <tuple>

#include "base/check.h"

namespace trainyard::coordinator {
namespace {

bool Contains(const std::vector<int32_t>& codes, int code) {
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

bool IsFromOutside(int signal) {
  return signal == SIGKILL || signal == SIGTERM || signal == SIGHUP || signal == SIGINT || signal == SIGBUS;
}

auto RootOrder(const v1::ExitRecord& exit) {
  const int group = exit.failure_class() == v1::FAILURE_CLASS_PERMANENT ? 0
                    : exit.failure_class() == v1::FAILURE_CLASS_CONTROL ? 2
                                                                        : 1;
  return std::make_tuple(group, exit.time().seconds(), exit.time().nanos(), exit.rank());
}

}  // namespace

v1::FailureClass Classify(const v1::ExitRecord& exit, const spec::ExitPolicyOptions& policy) {
  if (exit.has_exit_code() && !exit.has_signal()) {
    if (Contains(policy.always_retry, exit.exit_code())) return v1::FAILURE_CLASS_INFRA;
    if (Contains(policy.never_retry, exit.exit_code())) return v1::FAILURE_CLASS_PERMANENT;
  }
  if (exit.failure_class() != v1::FAILURE_CLASS_UNSPECIFIED) return exit.failure_class();
  if (exit.has_signal()) return IsFromOutside(exit.signal()) ? v1::FAILURE_CLASS_INFRA : v1::FAILURE_CLASS_USER;
  return v1::FAILURE_CLASS_USER;
}

const v1::ExitRecord& RootCause(const std::vector<v1::ExitRecord>& exits) {
  TY_CHECK(!exits.empty());
  return *std::min_element(exits.begin(), exits.end(), [](const v1::ExitRecord& a, const v1::ExitRecord& b) {
    return RootOrder(a) < RootOrder(b);
  });
}

}  // namespace trainyard::coordinator
