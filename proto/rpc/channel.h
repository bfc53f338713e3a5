// Channels as every client of ours makes them: keepalive that notices a dead peer in 40 s (CP-50), retries of
// UNAVAILABLE by service config (CP-49), messages up to 4 MiB unless the options say more.
//
// Set a deadline on each unary call: SetDeadline(&context). Watching streams have none.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/rpc/credentials.h"

namespace grpc {
class Channel;
class ClientContext;
}  // namespace grpc

namespace trainyard {

inline constexpr int kMaxMessageBytes = 4 << 20;
// Of what a worker sends in its session: a whole generation of trials is one message.
inline constexpr int kMaxSessionMessageBytes = 64 << 20;
inline constexpr absl::Duration kDefaultCallTimeout = absl::Seconds(10);

struct ChannelOptions {
  Security security;
  // Retries are right for calls that change nothing or carry a request_id, which is all of Jobs; a Workers session
  // reconnects by its own rules.
  bool retry = true;
  // Longest wait between two attempts to connect.
  absl::Duration maximum_reconnect_backoff = absl::Seconds(10);
  int max_send_bytes = kMaxMessageBytes;
};

// Returns at once; the connection is made by the first call. `address` is "host:port" or "unix:/path".
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address, const ChannelOptions& options);

void SetDeadline(grpc::ClientContext* context, absl::Duration timeout = kDefaultCallTimeout);

}  // namespace trainyard
