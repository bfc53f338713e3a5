// What the end of a rank's process means (control-plane.md section 5, CP-34). Pure.
#pragma once

#include <optional>

#include "proto/v1/job.pb.h"
#include "proto/v1/link.pb.h"

namespace trainyard::daemon {

// As waitpid tells it: one of the two.
struct ProcessEnd {
  std::optional<int> exit_code;
  std::optional<int> signal;
};

struct EndContext {
  bool has_result = false;                 // the runner said that the job's work is done
  std::optional<v1::RankFailure> failure;  // the runner's own account
  std::optional<v1::StopReason> stop;      // we asked it to stop, or killed it
};

// Class, reason, message, exit code and signal; the rest is the caller's. Success has class UNSPECIFIED and reason
// COMPLETED.
//
//   result and code 0       COMPLETED
//   asked to stop           CONTROL, whatever the code or signal, unless the runner itself named a failure before
//   runner named a failure  its class
//   code 0                  CONTROL, STOPPED: a SIGTERM from outside
//   64, 65, 78 / 75         PERMANENT / INFRA;  other codes USER
//   SIGSEGV, SIGABRT, SIGILL, SIGFPE   USER: our bug or bad data, which a retry repeats
//   other signals           INFRA: somebody or something outside ended it
v1::ExitRecord ClassifyEnd(const ProcessEnd& end, const EndContext& context);

}  // namespace trainyard::daemon
