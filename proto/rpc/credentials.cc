#include "proto/rpc/credentials.h"

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_certificate_verifier.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

namespace trainyard {
namespace {

// "127.0.0.1" and its 16 million siblings; not "127.evil.example".
bool IsLoopbackIpv4(absl::string_view host) {
  const std::vector<absl::string_view> parts = absl::StrSplit(host, '.');
  const auto is_byte = [](absl::string_view part) {
    int value = 0;
    return absl::SimpleAtoi(part, &value) && value >= 0 && value <= 255;
  };
  return parts.size() == 4 && parts[0] == "127" && std::all_of(parts.begin(), parts.end(), is_byte);
}

// Seconds between two looks at the files of a certificate.
constexpr unsigned kRefreshSeconds = 60;

using grpc::experimental::FileWatcherCertificateProvider;

std::shared_ptr<FileWatcherCertificateProvider> Watch(const TlsFiles& files) {
  return std::make_shared<FileWatcherCertificateProvider>(files.key, files.cert, files.ca, kRefreshSeconds);
}

}  // namespace

bool IsLoopback(absl::string_view address) {
  if (absl::StartsWith(address, "unix:") || absl::StartsWith(address, "unix-abstract:")) return true;
  for (absl::string_view scheme : {"dns:///", "dns:", "ipv4:", "ipv6:"}) {
    if (absl::ConsumePrefix(&address, scheme)) break;
  }
  if (absl::ConsumePrefix(&address, "[")) return address.substr(0, address.find(']')) == "::1";
  const absl::string_view host = address.substr(0, address.rfind(':'));
  return absl::EqualsIgnoreCase(host, "localhost") || host == "::1" || IsLoopbackIpv4(host);
}

absl::Status CheckPlaintext(absl::string_view address, const Security& security) {
  if (security.insecure || IsLoopback(address)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("'", address,
                   "' is not a loopback address and the connection would be plaintext; give --tls_cert, --tls_key and "
                   "--tls_ca (trainyard certs init makes them), or pass --insecure if the network is trusted"));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeChannelCredentials(absl::string_view address,
                                                                                 const Security& security) {
  if (security.tls.is_set()) {
    TY_RETURN_IF_ERROR(CheckTlsFiles(security.tls));
    grpc::experimental::TlsChannelCredentialsOptions options;
    options.set_certificate_provider(Watch(security.tls));
    options.watch_root_certs();
    options.watch_identity_key_cert_pairs();
    options.set_certificate_verifier(std::make_shared<grpc::experimental::HostNameCertificateVerifier>());
    return grpc::experimental::TlsCredentials(options);
  }
  TY_RETURN_IF_ERROR(CheckPlaintext(address, security));
  return grpc::InsecureChannelCredentials();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeServerCredentials(absl::string_view address,
                                                                               const Security& security) {
  if (security.tls.is_set()) {
    TY_RETURN_IF_ERROR(CheckTlsFiles(security.tls));
    grpc::experimental::TlsServerCredentialsOptions options(Watch(security.tls));
    options.watch_root_certs();
    options.watch_identity_key_cert_pairs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    return grpc::experimental::TlsServerCredentials(options);
  }
  TY_RETURN_IF_ERROR(CheckPlaintext(address, security));
  return grpc::InsecureServerCredentials();
}

}  // namespace trainyard
