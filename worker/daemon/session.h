// The stream to the coordinator: opened again and again, for ever, with back-off (0.5 s x 2 up to 10 s, +-20 %). What
// is said on it is the daemon's business; this knows no tasks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/backoff.h"
#include "proto/rpc/credentials.h"
#include "proto/v1/worker.pb.h"

namespace trainyard::daemon {

struct SessionOptions {
  std::string coordinator;  // host:port
  Security security;
  BackoffOptions backoff = {.initial = absl::Milliseconds(500), .maximum = absl::Seconds(10)};
  uint64_t seed = 0;  // of the jitter
};

class Session {
 public:
  // Called on threads of the session's own, one at a time for each stream; `generation` numbers the streams 1, 2, ...
  struct Handlers {
    // A stream is there to be written; whether the coordinator answers is open. First of a generation.
    std::function<void(uint64_t generation)> on_open;
    std::function<void(uint64_t generation, v1::CoordinatorMessage message)> on_message;
    // Last of a generation; on_open of the next follows after the back-off.
    std::function<void(uint64_t generation, absl::Status status)> on_closed;
  };

  static absl::StatusOr<std::unique_ptr<Session>> Start(const SessionOptions& options, Handlers handlers);
  virtual ~Session() = default;  // ends the stream and waits for the handlers

  // Queues a message; dropped unless `generation` is the open stream.
  virtual void Send(uint64_t generation, v1::WorkerMessage message) = 0;
  // Ends that stream, so that a new one is made.
  virtual void Close(uint64_t generation) = 0;
  // The stream has proved good: the back-off starts from its beginning again.
  virtual void ResetBackoff() = 0;
  // Messages queued and not yet taken by the transport.
  virtual size_t queued() const = 0;
};

}  // namespace trainyard::daemon
