// The three PEM files of mutual TLS (CP-74), checked before gRPC sees them: it would only say "handshake failed".
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace trainyard {

struct TlsFiles {
  std::string cert;  // own certificate, and what chains it to the CA (flag --tls_cert)
  std::string key;   // its private key (--tls_key)
  std::string ca;    // certificates whose holders are believed (--tls_ca)

  bool is_set() const { return !cert.empty() || !key.empty() || !ca.empty(); }
};

// InvalidArgument, naming the flag and the file: one of the three is missing or cannot be read, is not PEM, the key is
// not the certificate's, the certificate is not of the CA, or is not valid now.
absl::Status CheckTlsFiles(const TlsFiles& files);

}  // namespace trainyard
