// A whole coordinator in one object: store, core, services, metrics. The program is this plus flags; tests make several
// in one process.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "coordinator/core/timing.h"
#include "proto/rpc/tls_files.h"

namespace trainyard::coordinator {

struct CoordinatorOptions {
  std::string listen = "127.0.0.1:7070";  // port 0: any free one
  bool insecure = false;                  // plaintext also beyond loopback
  TlsFiles tls = {};                      // none: plaintext
  std::string data_dir;                   // database and logs
  std::string metrics_listen;             // empty: no metrics endpoint
  std::string web_listen;                 // empty: no web view; protected as `listen` is
  Timing timing;
  Clock* clock = RealClock();
};

class CoordinatorServer {
 public:
  // InvalidArgument: timing rules; FailedPrecondition: another coordinator has data_dir; Unavailable: an address is
  // taken; DataLoss: the database is damaged.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(const CoordinatorOptions& options);
  virtual ~CoordinatorServer() = default;

  // With the ports that were bound; metrics_address is empty without an endpoint.
  virtual std::string address() const = 0;
  virtual std::string metrics_address() const = 0;
  virtual std::string web_address() const = 0;  // empty without a web view
  virtual uint64_t leader_epoch() const = 0;

  // Health NOT_SERVING first, then streams end, calls finish, everything asked is committed. At most `limit` (CP-53).
  // The destructor does it too.
  virtual void Stop(absl::Duration limit = absl::Seconds(20)) = 0;
};

}  // namespace trainyard::coordinator
