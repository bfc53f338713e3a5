#include "worker/runner/fault.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.h"

namespace trainyard::runner {

Fault FaultOf(const absl::Status& status, absl::string_view where) {
  Fault fault;
  v1::FailureClass failure_class = v1::FAILURE_CLASS_USER;
  std::string reason = "RUN_FAILED";
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      failure_class = v1::FAILURE_CLASS_PERMANENT;
      reason = "SPEC_ERROR";
      fault.exit_code = kExitSpec;
      break;
    case absl::StatusCode::kNotFound:
      failure_class = v1::FAILURE_CLASS_PERMANENT;
      reason = "DATA_ERROR";
      fault.exit_code = kExitData;
      break;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kDataLoss:
      failure_class = v1::FAILURE_CLASS_INFRA;
      reason = "INFRA_FAILURE";
      fault.exit_code = kExitInfra;
      break;
    default:
      break;
  }
  const std::string given = GetErrorReason(status);
  fault.failure.set_failure_class(failure_class);
  fault.failure.set_reason(given.empty() ? reason : given);
  fault.failure.set_message(absl::StrCat(where, ": ", status.message()));
  return fault;
}

}  // namespace trainyard::runner
