// Told of every call that a server takes: of services, health and reflection, unary and streams.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace trainyard {

// Called on gRPC's threads, several at once; must not block. `method` is as on the wire, "/trainyard.v1.Jobs/Submit",
// of methods that the server has; others are refused by the library and not told.
class RpcObserver {
 public:
  virtual ~RpcObserver() = default;
  virtual void OnStarted(absl::string_view method, bool is_stream) = 0;
  // Once for each OnStarted: with the status that the server answered, `took` after the start. A call that ended
  // without an answer counts as cancelled.
  virtual void OnHandled(absl::string_view method, bool is_stream, absl::StatusCode code, absl::Duration took) = 0;
};

}  // namespace trainyard
