// The one place that decides how a connection is protected.
//
// Today everything is plaintext, which is allowed on loopback (and Unix sockets) only, unless `insecure` says that the
// operator knows. Certificates come in here and nowhere else.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grpc {
class ChannelCredentials;
class ServerCredentials;
}  // namespace grpc

namespace trainyard {

struct Security {
  bool insecure = false;  // plaintext also beyond loopback (flag --insecure)
};

// True for "localhost:1", "127.x.y.z:1", "[::1]:1", "unix:..." and "dns:///localhost:1".
bool IsLoopback(absl::string_view address);

// FailedPrecondition, naming the address and the flag, for plaintext beyond loopback without `insecure`.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(absl::string_view address,
                                                                                 const Security& security);
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(absl::string_view address,
                                                                               const Security& security);

}  // namespace trainyard
