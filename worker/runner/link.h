// The socket between a daemon and one runner: protobuf messages, each after its length as a 4-byte little-endian
// integer (proto/v1/link.proto). The daemon uses the framing in its own poll loop; a runner uses Link.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/mutex.h"
#include "base/unique_fd.h"
#include "proto/v1/link.pb.h"

namespace trainyard::runner {

// Longest message. A checkpoint manifest of 10,000 ranks or a rank table of as many stays below.
inline constexpr uint32_t kMaxFrameBytes = 16 << 20;

// Length and bytes of one message. InvalidArgument if it is longer than kMaxFrameBytes.
absl::StatusOr<std::string> EncodeFrame(const google::protobuf::MessageLite& message);

// Cuts a byte stream into messages.
class FrameDecoder {
 public:
  void Append(absl::string_view bytes) { buffer_.append(bytes.data(), bytes.size()); }
  // True with `payload` filled if a whole message has come; DataLoss if the length cannot be one.
  absl::StatusOr<bool> Next(std::string* payload);

 private:
  std::string buffer_;
  size_t begin_ = 0;
};

// The runner's end. A thread of its own reads commands, so that a stop is seen while a kernel runs.
class Link {
 public:
  struct Handlers {
    std::function<void(v1::RunnerCommand)> on_command;
    // The daemon has gone, or sent something that cannot be read. Called once, last.
    std::function<void(absl::Status)> on_closed;
  };

  // Takes the socket. Handlers run on the link's thread, one at a time, until the destructor returns.
  static std::unique_ptr<Link> Start(UniqueFd socket, Handlers handlers);
  ~Link();

  // Blocks while the socket is full; from any thread. Unavailable if the daemon has gone.
  absl::Status Send(const v1::RunnerReport& report);

 private:
  Link(UniqueFd socket, Handlers handlers);
  void Read();

  UniqueFd socket_;
  Handlers handlers_;
  Mutex send_mutex_;
  std::thread reader_;
};

}  // namespace trainyard::runner
