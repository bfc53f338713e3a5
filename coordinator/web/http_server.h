// A small HTTP/1.1 server for the web view: GET and HEAD, and event streams, all on one thread.
//
// Why not a library: Debian's civetweb, which serves /metrics, opens "libssl.so" at run time, a link of the development
// package that no image has, and keeps a thread for each open connection, so for each open page. cpp-httplib keeps a
// thread a connection too, idle ones and unfinished handshakes included, and neither counts the header lines nor the
// connections it accepts; a view must not be able to take the coordinator's descriptors, threads or memory. What
// remains without a library is small: requests have no body and answers are whole or streams of events.
//
// All bounds: connections (then new ones wait in the kernel, idle ones make room), size of a request's head, time for
// handshake, head, answer and write, idle time, streams, bytes that a slow stream may be behind.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/event_loop.h"
#include "coordinator/web/byte_channel.h"
#include "coordinator/web/http_request.h"
#include "coordinator/web/http_response.h"

namespace trainyard::coordinator {

struct HttpServerOptions {
  std::string listen;          // "host:port"; port 0 takes a free one
  TlsAcceptor* tls = nullptr;  // null: plaintext
  HttpHeaders headers = {};    // of every answer
  int max_connections = 256;
  int max_streams = 64;
  int64_t stream_buffer_bytes = 1 << 20;
  HttpLimits limits = {};
  absl::Duration request_time = absl::Seconds(10);  // handshake and head
  absl::Duration answer_time = absl::Seconds(20);   // the handler's
  absl::Duration write_time = absl::Seconds(20);    // without any byte being taken
  absl::Duration idle_time = absl::Seconds(60);
};

// For the loop's thread, but for the constructor and destructor, which need the loop to rest.
class HttpServer {
 public:
  // Names one request for as long as it is open; never used again.
  using RequestId = uint64_t;
  // Must lead to one Reply or BeginStream, now or later. The connection may be gone by then, which does no harm.
  using Handler = std::function<void(RequestId id, const HttpRequest& request)>;
  using StreamEnd = std::function<void(RequestId id)>;

  // Unavailable, with the address, if it cannot be bound. `stream_end` hears of each stream that ended, however.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(const HttpServerOptions& options, EventLoop* loop,
                                                            Handler handler, StreamEnd stream_end);
  ~HttpServer();

  int port() const { return port_; }

  void Reply(RequestId id, const HttpResponse& response);
  // Answers with text/event-stream. False: there are too many, and the request still wants its Reply; or it is gone.
  // `stream_end` may be called before this returns.
  bool BeginStream(RequestId id);
  // A whole event. A stream that is too far behind gets `last_words` after what the kernel already has, and ends.
  void Send(RequestId id, std::shared_ptr<const std::string> event, const std::string& last_words);
  // Ends the stream when everything has been sent.
  void EndStream(RequestId id);
  // Ends all streams and idle connections, and takes no new ones.
  void Close();

  // Timeouts; call about once a second with a monotonic time.
  void Tick(absl::Duration now);

  int connections() const { return static_cast<int>(connections_.size()); }
  int streams() const { return streams_; }

 private:
  enum class State { kHandshake, kReading, kAnswering, kWriting, kStreaming, kLingering };
  struct Connection {
    explicit Connection(ByteChannel c) : channel(std::move(c)) {}
    ByteChannel channel;
    State state = State::kHandshake;
    uint32_t events = 0;  // that the loop waits for
    RequestId request = 0;
    bool is_head = false;
    bool keeps = true;            // after the answer
    bool keeps_streaming = true;  // false: the stream ends when its output has been sent
    bool is_processing = false;   // ReadRequests is at work further up the stack
    std::string input;
    std::deque<std::shared_ptr<const std::string>> output;  // shared among streams
    size_t sent = 0;                                        // of output.front()
    int64_t unsent_bytes = 0;
    absl::Duration since;  // of the state, or of the last byte that was taken
  };

  HttpServer(HttpServerOptions options, EventLoop* loop, Handler handler, StreamEnd stream_end);
  absl::Status Listen();
  void ListenAgain(bool wanted);
  void Accept();
  void OnReady(int fd);
  void Advance(Connection& connection);
  void ReadInput(Connection& connection);
  void ReadRequests(Connection& connection);
  void Put(Connection& connection, std::shared_ptr<const std::string> bytes);
  void Flush(Connection& connection);
  void AfterAnswer(Connection& connection);
  void Wait(Connection& connection, uint32_t events);
  void End(Connection& connection);
  Connection* OldestIdle();
  Connection* Find(RequestId id, State state);

  const HttpServerOptions options_;
  EventLoop* const loop_;
  const Handler handler_;
  const StreamEnd stream_end_;
  UniqueFd listener_;
  int port_ = 0;
  bool is_listening_ = false;
  bool is_closed_ = false;
  absl::Duration now_ = absl::ZeroDuration();
  RequestId last_request_ = 0;
  int streams_ = 0;
  std::map<int, std::unique_ptr<Connection>> connections_;  // by descriptor
  std::map<RequestId, Connection*> requests_;
  std::vector<std::unique_ptr<Connection>> ended_;  // kept until nobody up the stack can hold one
};

}  // namespace trainyard::coordinator
