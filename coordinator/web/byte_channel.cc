#include "coordinator/web/byte_channel.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

namespace trainyard::coordinator {
namespace {

ByteChannel::Result FromErrno(ByteChannel::Result when_blocked) {
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return when_blocked;
  return ByteChannel::Result::kClosed;
}

}  // namespace

ByteChannel::ByteChannel(UniqueFd fd, TlsSession ssl) : fd_(std::move(fd)), ssl_(std::move(ssl)) {
  if (ssl_ != nullptr) SSL_set_fd(ssl_.get(), fd_.get());
}

ByteChannel::Result ByteChannel::FromTls(int returned) {
  const int error = SSL_get_error(ssl_.get(), returned);
  ERR_clear_error();  // the queue is the thread's, and the next call would find old errors there
  if (error == SSL_ERROR_WANT_READ) return Result::kWantRead;
  if (error == SSL_ERROR_WANT_WRITE) return Result::kWantWrite;
  return Result::kClosed;
}

ByteChannel::Result ByteChannel::Handshake() {
  if (ssl_ == nullptr) return Result::kDone;
  const int returned = SSL_accept(ssl_.get());
  return returned == 1 ? Result::kDone : FromTls(returned);
}

ByteChannel::Result ByteChannel::Read(char* buffer, size_t size, size_t* got) {
  *got = 0;
  if (ssl_ != nullptr) {
    const int returned = SSL_read_ex(ssl_.get(), buffer, size, got);
    return returned == 1 ? Result::kDone : FromTls(returned);
  }
  const ssize_t returned = recv(fd_.get(), buffer, size, 0);
  if (returned < 0) return FromErrno(Result::kWantRead);
  *got = static_cast<size_t>(returned);
  return returned == 0 ? Result::kClosed : Result::kDone;
}

ByteChannel::Result ByteChannel::Write(absl::string_view data, size_t* wrote) {
  *wrote = 0;
  if (data.empty()) return Result::kDone;
  if (ssl_ != nullptr) {
    const int returned = SSL_write_ex(ssl_.get(), data.data(), data.size(), wrote);
    return returned == 1 ? Result::kDone : FromTls(returned);
  }
  const ssize_t returned = send(fd_.get(), data.data(), data.size(), MSG_NOSIGNAL);
  if (returned < 0) return FromErrno(Result::kWantWrite);
  *wrote = static_cast<size_t>(returned);
  return Result::kDone;
}

void ByteChannel::EndWriting() {
  if (ssl_ != nullptr) {
    SSL_shutdown(ssl_.get());
    ERR_clear_error();
  }
  shutdown(fd_.get(), SHUT_WR);
}

ByteChannel::Result ByteChannel::Drain() {
  char buffer[4096];
  const ssize_t returned = recv(fd_.get(), buffer, sizeof(buffer), 0);
  if (returned < 0) return FromErrno(Result::kWantRead);
  return returned == 0 ? Result::kClosed : Result::kDone;
}

}  // namespace trainyard::coordinator
