// Whose fault an error is, and the exit code that says so (control-plane.md section 5).
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "proto/v1/link.pb.h"

namespace trainyard::runner {

inline constexpr int kExitDone = 0;   // the job's work is done (a result was sent), or the rank left as it was asked to
inline constexpr int kExitSpec = 64;  // permanent: the spec
inline constexpr int kExitData = 65;  // permanent: data or model files it names
inline constexpr int kExitUser = 70;  // the user's: NaN policy, out of memory, anything else about the run itself
inline constexpr int kExitInfra = 75;  // a peer, the network, storage: try again

struct Fault {
  v1::RankFailure failure;
  int exit_code = kExitUser;
};

//   InvalidArgument -> 64 SPEC_ERROR      NotFound -> 65 DATA_ERROR
//   Unavailable, DeadlineExceeded, Aborted, DataLoss -> 75 INFRA     everything else -> 70 RUN_FAILED
// The reason of the status (error_details.h), if it has one, replaces the names above; `where` is put before the
// message.
Fault FaultOf(const absl::Status& status, absl::string_view where);

}  // namespace trainyard::runner
