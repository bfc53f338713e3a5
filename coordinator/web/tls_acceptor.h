// The server's side of mutual TLS for the web port: as for gRPC (proto/rpc/credentials.h), whoever connects must show a
// certificate of the CA, and files that change are read again without a restart.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/rpc/tls_files.h"

struct ssl_st;
struct ssl_ctx_st;

namespace trainyard::coordinator {

struct TlsSessionFree {
  void operator()(ssl_st* session) const;
};
using TlsSession = std::unique_ptr<ssl_st, TlsSessionFree>;

struct TlsContextFree {
  void operator()(ssl_ctx_st* context) const;
};
using TlsContext = std::unique_ptr<ssl_ctx_st, TlsContextFree>;

// For one thread.
class TlsAcceptor {
 public:
  // InvalidArgument as CheckTlsFiles.
  static absl::StatusOr<std::unique_ptr<TlsAcceptor>> Create(const TlsFiles& files);

  // For one connection that comes; its handshake fails unless the peer has a certificate of the CA.
  TlsSession NewSession();

  // Looks whether the files have changed, and takes what is there now for new connections. Files that do not fit
  // together (a renewal under way, say) are logged and leave everything as it was. True: something was taken.
  bool Refresh();

 private:
  // What tells a file from the one that was there before.
  struct Stamp {
    long long inode = 0, size = 0, seconds = 0, nanoseconds = 0;
    bool operator==(const Stamp&) const = default;
  };

  explicit TlsAcceptor(TlsFiles files) : files_(std::move(files)) {}
  std::vector<Stamp> Look() const;
  absl::Status Load();

  const TlsFiles files_;
  TlsContext context_;
  std::vector<Stamp> seen_;
};

}  // namespace trainyard::coordinator
