#include "worker/daemon/exit_class.h"

#include <csignal>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace trainyard::daemon {
namespace {

v1::FailureClass ClassOfCode(int code) {
  switch (code) {
    case 64:
    case 65:
    case 78:
      return v1::FAILURE_CLASS_PERMANENT;
    case 75:
      return v1::FAILURE_CLASS_INFRA;
    default:
      return v1::FAILURE_CLASS_USER;
  }
}

bool IsCrash(int signal) {
  return signal == SIGSEGV || signal == SIGABRT || signal == SIGILL || signal == SIGFPE;
}

}  // namespace

v1::ExitRecord ClassifyEnd(const ProcessEnd& end, const EndContext& context) {
  v1::ExitRecord record;
  if (end.exit_code) record.set_exit_code(*end.exit_code);
  if (end.signal) record.set_signal(*end.signal);
  const auto set = [&](v1::FailureClass failure_class, const char* reason, std::string message) {
    record.set_failure_class(failure_class);
    record.set_reason(reason);
    record.set_message(std::move(message));
    return record;
  };
  const int code = end.exit_code.value_or(-1);
  if (code == 0 && context.has_result) return set(v1::FAILURE_CLASS_UNSPECIFIED, "COMPLETED", "the rank is done");
  if (context.failure) {
    record.set_failure_class(context.failure->failure_class());
    record.set_reason(context.failure->reason());
    record.set_message(context.failure->message());
    return record;
  }
  if (context.stop) {
    const std::string name = v1::StopReason_Name(*context.stop);
    return set(v1::FAILURE_CLASS_CONTROL, *context.stop == v1::STOP_REASON_PEER_FAILED ? "PEER_FAILED" : "STOPPED",
               absl::StrCat("stopped as asked: ", name.substr(sizeof("STOP_REASON_") - 1)));
  }
  if (code == 0) {
    return set(v1::FAILURE_CLASS_CONTROL, "STOPPED", "the rank left with code 0 before its work was done (SIGTERM?)");
  }
  if (end.exit_code) return set(ClassOfCode(code), "RANK_EXITED", absl::StrCat("the rank exited with code ", code));
  const int signal = end.signal.value_or(0);
  return set(IsCrash(signal) ? v1::FAILURE_CLASS_USER : v1::FAILURE_CLASS_INFRA,
             IsCrash(signal) ? "RANK_CRASHED" : "RANK_KILLED",
             absl::StrCat("the rank was ended by signal ", signal, " (", strsignal(signal), ")"));
}

}  // namespace trainyard::daemon
