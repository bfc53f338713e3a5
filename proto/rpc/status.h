// absl::Status <-> grpc::Status. Codes are the same numbers; payloads travel as google.rpc.Status details, so field
// violations and error reasons (error_details.h) arrive as they left.
#pragma once

#include "absl/status/status.h"

namespace grpc {
class Status;
}

namespace trainyard {

grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace trainyard
