// What a process tells over HTTP, on one port: GET /metrics for Prometheus, GET /livez and GET /readyz for probes (200
// with "ok", or 503 with the reason).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace prometheus {
class Collectable;
}

namespace trainyard {

class StatusServer {
 public:
  // Asked on threads of the server, which it should not hold for more than a few seconds.
  using Check = std::function<absl::Status()>;
  struct Options {
    std::string listen;  // "host:port"; port 0 takes a free one
    std::shared_ptr<prometheus::Collectable> metrics;
    Check is_live;   // the process does its work; if not, it should be started again
    Check is_ready;  // it can serve now
  };

  // Unavailable, with the address, if it cannot be bound. Serves until it is destroyed.
  static absl::StatusOr<std::unique_ptr<StatusServer>> Start(Options options);
  virtual ~StatusServer() = default;

  virtual int port() const = 0;
};

}  // namespace trainyard
