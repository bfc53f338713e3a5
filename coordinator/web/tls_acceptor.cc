#include "coordinator/web/tls_acceptor.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace trainyard::coordinator {
namespace {

// Says HTTP/1.1 to clients that ask; those that only speak something else get no protocol, which ends in a clear error.
int ChooseProtocol(SSL*, const unsigned char** out, unsigned char* out_bytes, const unsigned char* in,
                   unsigned in_bytes, void*) {
  static constexpr unsigned char kHttp[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_bytes, kHttp, sizeof(kHttp), in, in_bytes) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

absl::Status LibraryError(const std::string& what) {
  char text[256] = "unknown";
  ERR_error_string_n(ERR_get_error(), text, sizeof(text));
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(what, ": ", text));
}

}  // namespace

void TlsSessionFree::operator()(ssl_st* session) const {
  SSL_free(session);
}

void TlsContextFree::operator()(ssl_ctx_st* context) const {
  SSL_CTX_free(context);
}

absl::StatusOr<std::unique_ptr<TlsAcceptor>> TlsAcceptor::Create(const TlsFiles& files) {
  auto acceptor = std::unique_ptr<TlsAcceptor>(new TlsAcceptor(files));
  acceptor->seen_ = acceptor->Look();
  TY_RETURN_IF_ERROR(acceptor->Load());
  return acceptor;
}

absl::Status TlsAcceptor::Load() {
  TY_RETURN_IF_ERROR(CheckTlsFiles(files_));
  TlsContext context(SSL_CTX_new(TLS_server_method()));
  SSL_CTX* const ctx = context.get();
  if (ctx == nullptr) return LibraryError("TLS");
  SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
  // No resumption: a certificate is shown in every handshake, so one that is not accepted any more is soon out.
  SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(ctx, 0);
  SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_alpn_select_cb(ctx, ChooseProtocol, nullptr);
  if (SSL_CTX_use_certificate_chain_file(ctx, files_.cert.c_str()) != 1) return LibraryError(files_.cert);
  if (SSL_CTX_use_PrivateKey_file(ctx, files_.key.c_str(), SSL_FILETYPE_PEM) != 1) return LibraryError(files_.key);
  if (SSL_CTX_check_private_key(ctx) != 1) return LibraryError(files_.key);
  if (SSL_CTX_load_verify_file(ctx, files_.ca.c_str()) != 1) return LibraryError(files_.ca);
  // Browsers offer their user the certificates of these CAs only.
  SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(files_.ca.c_str()));
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  ERR_clear_error();
  context_ = std::move(context);
  return absl::OkStatus();
}

TlsSession TlsAcceptor::NewSession() {
  return TlsSession(SSL_new(context_.get()));
}

std::vector<TlsAcceptor::Stamp> TlsAcceptor::Look() const {
  std::vector<Stamp> stamps;
  for (const std::string* path : {&files_.cert, &files_.key, &files_.ca}) {
    struct stat info = {};
    if (stat(path->c_str(), &info) != 0) info = {};
    stamps.push_back({.inode = static_cast<long long>(info.st_ino),
                      .size = info.st_size,
                      .seconds = info.st_mtim.tv_sec,
                      .nanoseconds = info.st_mtim.tv_nsec});
  }
  return stamps;
}

bool TlsAcceptor::Refresh() {
  std::vector<Stamp> now = Look();
  if (now == seen_) return false;
  seen_ = std::move(now);
  const absl::Status status = Load();
  if (!status.ok()) {
    LogWarning("web: new certificates are not taken, the old ones stay: ", std::string(status.message()));
    return false;
  }
  LogInfo("web: took new certificates from ", files_.cert);
  return true;
}

}  // namespace trainyard::coordinator
