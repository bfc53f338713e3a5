// A certificate authority and certificates of its making, for mutual TLS between the parts of one cluster (CP-74).
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trainyard::client {

struct CertificateAuthority {
  std::string certificate;  // PEM, self-signed, EC P-256
  std::string key;          // PEM
};
// Valid from an hour ago, for clocks that differ, for `days` from now.
absl::StatusOr<CertificateAuthority> MakeAuthority(const std::string& common_name, int days);

struct CertificateRequest {
  std::string common_name;
  std::vector<std::string> hosts;  // names and addresses of a server: subject alternative names
  int days = 0;
};
struct IssuedCertificate {
  std::string certificate, key;  // PEM
};
// For both sides of a connection. InvalidArgument for a host that is neither a name nor an address.
absl::StatusOr<IssuedCertificate> Issue(const CertificateAuthority& authority, const CertificateRequest& request);

}  // namespace trainyard::client
