// A gRPC server as every server of ours runs: pings of 30 s clients accepted (CP-50), messages up to 4 MiB unless the
// options say more, the default health service and reflection (CP-53).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/credentials.h"
#include "proto/rpc/rpc_observer.h"

namespace grpc {
class Server;
class Service;
}  // namespace grpc

namespace trainyard {

struct RpcServerOptions {
  std::string address = "127.0.0.1:0";  // port 0: any free one
  Security security;
  int max_receive_bytes = kMaxMessageBytes;
  RpcObserver* observer = nullptr;  // outlives the server; may be null
};

// Serves from Start until it is destroyed. Safe from any thread.
class RpcServer {
 public:
  // The services outlive the server. Unavailable, with the address, if it cannot be bound.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const RpcServerOptions& options,
                                                          const std::vector<grpc::Service*>& services);
  // Shuts down with the default grace.
  ~RpcServer();

  // "127.0.0.1:41234": the address with the port that was bound.
  const std::string& address() const { return address_; }

  // What the health service answers for the whole server; true from the start.
  void SetServing(bool serving);

  // Health turns NOT_SERVING, no new calls are taken, running calls have `grace` to end, then they are cancelled.
  // Returns when all have ended. Later calls do nothing.
  void Shutdown(absl::Duration grace = absl::Seconds(20));

 private:
  RpcServer(std::unique_ptr<grpc::Server> server, std::string address);

  const std::unique_ptr<grpc::Server> server_;
  const std::string address_;
};

}  // namespace trainyard
