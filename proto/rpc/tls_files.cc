#include "proto/rpc/tls_files.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard {
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
using Store = std::unique_ptr<X509_STORE, Free<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Free<X509_STORE_CTX_free>>;

struct StackFree {
  void operator()(STACK_OF(X509) * stack) const { sk_X509_free(stack); }
};
using Stack = std::unique_ptr<STACK_OF(X509), StackFree>;

absl::Status Bad(absl::string_view flag, const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": ", what));
}

absl::StatusOr<Bio> Open(absl::string_view flag, const std::string& path) {
  if (path.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, " is missing: TLS needs --tls_cert, --tls_key and --tls_ca together"));
  }
  const absl::StatusOr<std::string> content = ReadFile(path);
  if (!content.ok()) return Bad(flag, path, content.status().message());
  Bio bio(BIO_new(BIO_s_mem()));
  BIO_write(bio.get(), content->data(), static_cast<int>(content->size()));
  return bio;
}

absl::StatusOr<std::vector<Certificate>> ReadCertificates(absl::string_view flag, const std::string& path) {
  TY_ASSIGN_OR_RETURN(const Bio bio, Open(flag, path));
  std::vector<Certificate> certificates;
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    certificates.emplace_back(certificate);
  }
  ERR_clear_error();  // of the end of the file
  if (certificates.empty()) return Bad(flag, path, "holds no PEM certificate");
  return certificates;
}

}  // namespace

absl::Status CheckTlsFiles(const TlsFiles& files) {
  TY_ASSIGN_OR_RETURN(const std::vector<Certificate> chain, ReadCertificates("--tls_cert", files.cert));
  TY_ASSIGN_OR_RETURN(const Bio key_text, Open("--tls_key", files.key));
  const Key key(PEM_read_bio_PrivateKey(key_text.get(), nullptr, nullptr, nullptr));
  if (key == nullptr) {
    ERR_clear_error();
    return Bad("--tls_key", files.key, "holds no PEM private key without a passphrase");
  }
  if (X509_check_private_key(chain.front().get(), key.get()) != 1) {
    ERR_clear_error();
    return Bad("--tls_key", files.key, absl::StrCat("is not the key of the certificate in ", files.cert));
  }
  TY_ASSIGN_OR_RETURN(const std::vector<Certificate> roots, ReadCertificates("--tls_ca", files.ca));

  const Store store(X509_STORE_new());
  for (const Certificate& root : roots) X509_STORE_add_cert(store.get(), root.get());
  const Stack untrusted(sk_X509_new_null());
  for (size_t i = 1; i < chain.size(); ++i) sk_X509_push(untrusted.get(), chain[i].get());
  const StoreContext context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), chain.front().get(), untrusted.get());
  if (X509_verify_cert(context.get()) != 1) {
    const char* why = X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get()));
    ERR_clear_error();
    return Bad("--tls_cert", files.cert, absl::StrCat("is not accepted under ", files.ca, ": ", why));
  }
  return absl::OkStatus();
}

}  // namespace trainyard
