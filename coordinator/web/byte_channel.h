// A connected socket that never blocks, plaintext or TLS.
#pragma once

#include <cstddef>
#include <memory>

#include "absl/strings/string_view.h"
#include "base/unique_fd.h"
#include "coordinator/web/tls_acceptor.h"

namespace trainyard::coordinator {

class ByteChannel {
 public:
  enum class Result {
    kDone,       // something was moved; there may be more
    kWantRead,   // call again when the socket can be read
    kWantWrite,  // call again when it can be written
    kClosed,     // by the peer, by an error, or a handshake that failed
  };

  // `ssl` is null for plaintext.
  ByteChannel(UniqueFd fd, TlsSession ssl);

  // kDone at once for plaintext.
  Result Handshake();
  Result Read(char* buffer, size_t size, size_t* got);
  Result Write(absl::string_view data, size_t* wrote);
  // Says that nothing more will be sent. What the peer still sends should be read for a moment before the socket is
  // closed, or the kernel may take back what the peer has not read yet.
  void EndWriting();
  // Reads and drops, below TLS. kClosed at the peer's end.
  Result Drain();

  int fd() const { return fd_.get(); }

 private:
  Result FromTls(int returned);

  UniqueFd fd_;
  TlsSession ssl_;  // before fd_ is closed
};

}  // namespace trainyard::coordinator
