// The one place that decides how a connection is protected.
//
// With certificates it is mutual TLS: either side must show one of the CA, and a server's must name the host that the
// client has called. Files are read again when they change, so a renewal needs no restart. Without, it is plaintext,
// which is allowed on loopback (and Unix sockets) only, unless `insecure` says that the operator knows.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/rpc/tls_files.h"

namespace grpc {
class ChannelCredentials;
class ServerCredentials;
}  // namespace grpc

namespace trainyard {

struct Security {
  bool insecure = false;  // plaintext also beyond loopback (flag --insecure)
  TlsFiles tls = {};      // none: plaintext
};

// True for "localhost:1", "127.x.y.z:1", "[::1]:1", "unix:..." and "dns:///localhost:1".
bool IsLoopback(absl::string_view address);

// FailedPrecondition, naming the address and the flag, for plaintext beyond loopback without `insecure`. Those below
// have asked it already; it is for connections that are not gRPC's.
absl::Status CheckPlaintext(absl::string_view address, const Security& security);

// As CheckPlaintext, and InvalidArgument as CheckTlsFiles.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(absl::string_view address,
                                                                                 const Security& security);
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(absl::string_view address,
                                                                               const Security& security);

}  // namespace trainyard
