// The coordinator's gRPC calls as Prometheus series (CP-69):
//
//   trainyard_grpc_server_started_total{method,type}        calls that have come
//   trainyard_grpc_server_handled_total{method,type,code}   calls that have ended
//   trainyard_grpc_server_handling_seconds{method,type}     how long they took; of a stream, how long it was open
//
// `method` is "Jobs/Submit", `type` unary or stream, `code` the status in lower case ("ok", "not_found"). The methods
// of our services have series from the start; other services of the library (health, reflection) get theirs with the
// first call, and more than kMaxMethods share the label "other", so that the number of series is bounded.
#pragma once

#include <memory>

#include "proto/rpc/rpc_observer.h"

namespace prometheus {
class Registry;
}

namespace trainyard::coordinator {

class RpcMetrics final : public RpcObserver {
 public:
  // All methods of our services and as many others.
  static constexpr int kMaxMethods = 40;

  // The registry outlives the object.
  explicit RpcMetrics(prometheus::Registry* registry);
  ~RpcMetrics() override;

  void OnStarted(absl::string_view method, bool is_stream) override;
  void OnHandled(absl::string_view method, bool is_stream, absl::StatusCode code, absl::Duration took) override;

 private:
  struct Families;
  const std::unique_ptr<Families> families_;
};

}  // namespace trainyard::coordinator
