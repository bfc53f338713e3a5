#include "client/certificates.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace trainyard::client {
namespace {

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Bio = std::unique_ptr<BIO, Free<BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using Number = std::unique_ptr<BIGNUM, Free<BN_free>>;
using Extension = std::unique_ptr<X509_EXTENSION, Free<X509_EXTENSION_free>>;

absl::Status LibraryError(const char* what) {
  char text[256] = {};
  ERR_error_string_n(ERR_get_error(), text, sizeof(text));
  ERR_clear_error();
  return absl::InternalError(absl::StrCat(what, ": ", text));
}

std::string Text(const Bio& bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

std::string ToPem(X509* certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), certificate);
  return Text(bio);
}

std::string ToPem(EVP_PKEY* key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  return Text(bio);
}

Bio FromText(const std::string& text) {
  Bio bio(BIO_new(BIO_s_mem()));
  BIO_write(bio.get(), text.data(), static_cast<int>(text.size()));
  return bio;
}

// DNS names as certificates hold them, or the start of a wildcard.
bool IsHostName(const std::string& host) {
  const auto is_allowed = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.';
  };
  const size_t begin = host.rfind("*.", 0) == 0 ? 2 : 0;
  return host.size() > begin && host.size() <= 253 && host[begin] != '.' && host[begin] != '-' &&
         std::all_of(host.begin() + static_cast<std::ptrdiff_t>(begin), host.end(), is_allowed);
}

bool IsAddress(const std::string& host) {
  ASN1_OCTET_STRING* bytes = a2i_IPADDRESS(host.c_str());
  ERR_clear_error();
  ASN1_OCTET_STRING_free(bytes);
  return bytes != nullptr;
}

absl::Status AddExtension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  if (extension == nullptr || X509_add_ext(certificate, extension.get(), -1) != 1) return LibraryError(value.c_str());
  return absl::OkStatus();
}

// A certificate of `key` without extensions and signature, named by its subject; the issuer's name is left to the
// caller.
absl::StatusOr<Certificate> Begin(const std::string& common_name, EVP_PKEY* key, int days) {
  constexpr long kHour = 3600;
  constexpr long kDay = 24 * kHour;
  Certificate certificate(X509_new());
  X509_set_version(certificate.get(), 2);  // means 3
  unsigned char serial[16];
  if (RAND_bytes(serial, sizeof(serial)) != 1) return LibraryError("random serial number");
  serial[0] &= 0x7F;  // positive
  const Number number(BN_bin2bn(serial, sizeof(serial), nullptr));
  BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate.get()));
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -kHour);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), kDay * days);
  X509_set_pubkey(certificate.get(), key);
  const auto* name = reinterpret_cast<const unsigned char*>(common_name.c_str());
  if (X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate.get()), "CN", MBSTRING_UTF8, name, -1, -1, 0) != 1) {
    return LibraryError(common_name.c_str());
  }
  return certificate;
}

}  // namespace

absl::StatusOr<CertificateAuthority> MakeAuthority(const std::string& common_name, int days) {
  const Key key(EVP_EC_gen("P-256"));
  if (key == nullptr) return LibraryError("key of the CA");
  TY_ASSIGN_OR_RETURN(const Certificate certificate, Begin(common_name, key.get(), days));
  X509* const x509 = certificate.get();
  X509_set_issuer_name(x509, X509_get_subject_name(x509));
  TY_RETURN_IF_ERROR(AddExtension(x509, x509, NID_basic_constraints, "critical,CA:TRUE,pathlen:0"));
  TY_RETURN_IF_ERROR(AddExtension(x509, x509, NID_key_usage, "critical,keyCertSign,cRLSign"));
  TY_RETURN_IF_ERROR(AddExtension(x509, x509, NID_subject_key_identifier, "hash"));
  if (X509_sign(x509, key.get(), EVP_sha256()) == 0) return LibraryError("signing the CA");
  return CertificateAuthority{.certificate = ToPem(x509), .key = ToPem(key.get())};
}

absl::StatusOr<IssuedCertificate> Issue(const CertificateAuthority& authority, const CertificateRequest& request) {
  std::vector<std::string> names;
  for (const std::string& host : request.hosts) {
    if (!IsAddress(host) && !IsHostName(host)) {
      return absl::InvalidArgumentError(absl::StrCat("'", host, "' is neither a host name nor an IP address"));
    }
    names.push_back(absl::StrCat(IsAddress(host) ? "IP:" : "DNS:", host));
  }
  const Bio issuer_text = FromText(authority.certificate), issuer_key_text = FromText(authority.key);
  const Certificate issuer(PEM_read_bio_X509(issuer_text.get(), nullptr, nullptr, nullptr));
  const Key issuer_key(PEM_read_bio_PrivateKey(issuer_key_text.get(), nullptr, nullptr, nullptr));
  if (issuer == nullptr || issuer_key == nullptr) return LibraryError("reading the CA");
  const Key key(EVP_EC_gen("P-256"));
  if (key == nullptr) return LibraryError("key");
  TY_ASSIGN_OR_RETURN(const Certificate certificate, Begin(request.common_name, key.get(), request.days));
  X509* const x509 = certificate.get();
  X509_set_issuer_name(x509, X509_get_subject_name(issuer.get()));
  TY_RETURN_IF_ERROR(AddExtension(x509, issuer.get(), NID_basic_constraints, "critical,CA:FALSE"));
  TY_RETURN_IF_ERROR(AddExtension(x509, issuer.get(), NID_key_usage, "critical,digitalSignature"));
  TY_RETURN_IF_ERROR(AddExtension(x509, issuer.get(), NID_ext_key_usage, "serverAuth,clientAuth"));
  if (!names.empty()) {
    TY_RETURN_IF_ERROR(AddExtension(x509, issuer.get(), NID_subject_alt_name, absl::StrJoin(names, ",")));
  }
  if (X509_sign(x509, issuer_key.get(), EVP_sha256()) == 0) return LibraryError("signing a certificate");
  return IssuedCertificate{.certificate = ToPem(x509), .key = ToPem(key.get())};
}

}  // namespace trainyard::client
