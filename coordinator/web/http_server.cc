#include "coordinator/web/http_server.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace trainyard::coordinator {
namespace {

constexpr size_t kReadBytes = 16 << 10;
constexpr absl::Duration kLinger = absl::Seconds(2);
constexpr int kBacklog = 128;
// Reads of one connection in a row.
constexpr int kRounds = 16;

HttpResponse PlainText(int status, const std::string& text) {
  return {.status = status, .type = "text/plain; charset=utf-8", .body = text + "\n"};
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(const HttpServerOptions& options, EventLoop* loop,
                                                               Handler handler, StreamEnd stream_end) {
  auto server = std::unique_ptr<HttpServer>(new HttpServer(options, loop, std::move(handler), std::move(stream_end)));
  if (const absl::Status status = server->Listen(); !status.ok()) return status;
  return server;
}

HttpServer::HttpServer(HttpServerOptions options, EventLoop* loop, Handler handler, StreamEnd stream_end)
    : options_(std::move(options)), loop_(loop), handler_(std::move(handler)), stream_end_(std::move(stream_end)) {}

HttpServer::~HttpServer() {
  ListenAgain(false);
  for (const auto& [fd, connection] : connections_) loop_->Forget(fd);
}

absl::Status HttpServer::Listen() {
  const auto error = [&](absl::string_view why) {
    return absl::UnavailableError(absl::StrCat("cannot serve the web view on ", options_.listen, ": ", why));
  };
  const size_t colon = options_.listen.rfind(':');
  if (colon == std::string::npos) return error("it is not HOST:PORT");
  std::string host = options_.listen.substr(0, colon);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int resolved =
      getaddrinfo(host.empty() ? nullptr : host.c_str(), options_.listen.c_str() + colon + 1, &hints, &found);
  if (resolved != 0) return error(gai_strerror(resolved));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, freeaddrinfo);
  listener_.reset(socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (!listener_.valid() || bind(listener_.get(), found->ai_addr, found->ai_addrlen) != 0 ||
      listen(listener_.get(), kBacklog) != 0) {
    return error(strerror(errno));
  }
  sockaddr_storage bound = {};
  socklen_t size = sizeof(bound);
  getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&bound), &size);
  port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                            : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  ListenAgain(true);
  return absl::OkStatus();
}

void HttpServer::ListenAgain(bool wanted) {
  if (wanted == is_listening_ || (wanted && is_closed_)) return;
  is_listening_ = wanted;
  if (wanted) {
    loop_->Watch(listener_.get(), EPOLLIN, [this](uint32_t) { Accept(); });
  } else {
    loop_->Forget(listener_.get());
  }
}

void HttpServer::Accept() {
  while (true) {
    if (connections() >= options_.max_connections && OldestIdle() == nullptr) {
      ListenAgain(false);  // whoever comes waits in the kernel's queue
      return;
    }
    UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) {
      // Without descriptors the loop would be woken again and again; Tick tries again.
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) ListenAgain(false);
      return;
    }
    if (connections() >= options_.max_connections) End(*OldestIdle());
    const int on = 1;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    TlsSession session = options_.tls == nullptr ? nullptr : options_.tls->NewSession();
    if (options_.tls != nullptr && session == nullptr) continue;
    const int number = fd.get();
    auto connection = std::make_unique<Connection>(ByteChannel(std::move(fd), std::move(session)));
    connection->since = now_;
    connection->events = EPOLLIN;
    connections_[number] = std::move(connection);
    loop_->Watch(number, EPOLLIN, [this, number](uint32_t) { OnReady(number); });
  }
}

void HttpServer::OnReady(int fd) {
  ended_.clear();
  const auto found = connections_.find(fd);
  if (found != connections_.end()) Advance(*found->second);
}

void HttpServer::Advance(Connection& connection) {
  using Result = ByteChannel::Result;
  if (connection.state == State::kHandshake) {
    const Result result = connection.channel.Handshake();
    if (result == Result::kClosed) {
      // Who was refused may be sending its request already. It shall not meet a closed socket, and so miss the alert
      // that tells why.
      connection.state = State::kLingering;
      connection.since = now_;
      connection.channel.EndWriting();
      return Wait(connection, EPOLLIN);
    }
    if (result != Result::kDone) return Wait(connection, result == Result::kWantWrite ? EPOLLOUT : EPOLLIN);
    connection.state = State::kReading;
  }
  if (connection.state == State::kLingering) {
    Result result = Result::kDone;
    for (int round = 0; round < kRounds && result == Result::kDone; ++round) result = connection.channel.Drain();
    if (result != Result::kWantRead) End(connection);
    return;
  }
  if (!connection.output.empty()) {
    Flush(connection);
    return;
  }
  ReadInput(connection);
}

// Also while an answer is made or streamed, to learn that the peer has gone.
void HttpServer::ReadInput(Connection& connection) {
  char buffer[kReadBytes];
  const int fd = connection.channel.fd();
  for (int round = 0;; ++round) {
    if (round == kRounds) {  // others want to be served too
      loop_->Post([this, fd] { OnReady(fd); });
      return;
    }
    size_t got = 0;
    const ByteChannel::Result result = connection.channel.Read(buffer, sizeof(buffer), &got);
    if (result == ByteChannel::Result::kClosed) return End(connection);
    if (result != ByteChannel::Result::kDone) {
      return Wait(connection, result == ByteChannel::Result::kWantWrite ? EPOLLOUT : EPOLLIN);
    }
    // Nothing may follow the request of a stream, and one waiting request is as much as is kept of others.
    const bool is_too_much =
        connection.state == State::kStreaming ||
        (connection.state == State::kAnswering && connection.input.size() + got > options_.limits.head_bytes);
    if (is_too_much) return End(connection);
    if (connection.state == State::kReading && connection.input.empty()) connection.since = now_;
    connection.input.append(buffer, got);
    ReadRequests(connection);
    const auto found = connections_.find(fd);
    if (found == connections_.end() || found->second.get() != &connection) return;
    if (connection.state == State::kLingering || !connection.output.empty()) return;
  }
}

void HttpServer::ReadRequests(Connection& connection) {
  if (connection.is_processing) return;
  connection.is_processing = true;
  while (connection.state == State::kReading && !connection.input.empty()) {
    ParsedHead head = ParseHead(connection.input, options_.limits);
    if (head.outcome == ParsedHead::Outcome::kIncomplete) break;
    connection.state = State::kAnswering;
    connection.since = now_;
    connection.request = ++last_request_;
    requests_[connection.request] = &connection;
    if (head.outcome == ParsedHead::Outcome::kRefused) {
      connection.keeps = false;
      connection.input.clear();
      HttpResponse refusal = PlainText(head.status, head.problem);
      if (head.status == 405) refusal.headers.emplace_back("Allow", "GET, HEAD");
      Reply(connection.request, refusal);
      break;
    }
    connection.input.erase(0, head.bytes);
    connection.is_head = head.request.is_head;
    connection.keeps = head.request.keeps_connection && !is_closed_;
    handler_(connection.request, head.request);
  }
  connection.is_processing = false;
}

HttpServer::Connection* HttpServer::Find(RequestId id, State state) {
  const auto found = requests_.find(id);
  return found == requests_.end() || found->second->state != state ? nullptr : found->second;
}

void HttpServer::Reply(RequestId id, const HttpResponse& response) {
  Connection* const connection = Find(id, State::kAnswering);
  if (connection == nullptr) return;
  requests_.erase(id);
  connection->state = State::kWriting;
  connection->since = now_;
  std::string bytes =
      WriteHead(response, {.common = options_.headers, .keeps_connection = connection->keeps, .has_length = true});
  if (!connection->is_head && response.status != 304) bytes += response.body;
  Put(*connection, std::make_shared<const std::string>(std::move(bytes)));
}

bool HttpServer::BeginStream(RequestId id) {
  Connection* const connection = Find(id, State::kAnswering);
  if (connection == nullptr || streams_ >= options_.max_streams || is_closed_) return false;
  const HttpResponse response{.type = "text/event-stream", .headers = {{"X-Accel-Buffering", "no"}}};
  connection->keeps = false;
  ++streams_;
  connection->state = State::kStreaming;
  connection->since = now_;
  Put(*connection, std::make_shared<const std::string>(WriteHead(response, {.common = options_.headers})));
  return true;
}

void HttpServer::Send(RequestId id, std::shared_ptr<const std::string> event, const std::string& last_words) {
  Connection* const connection = Find(id, State::kStreaming);
  if (connection == nullptr || !connection->keeps_streaming) return;
  if (connection->unsent_bytes + static_cast<int64_t>(event->size()) <= options_.stream_buffer_bytes) {
    Put(*connection, std::move(event));
    return;
  }
  // What has been sent in part must be sent to its end, or the stream would make no sense to its reader.
  const size_t kept = connection->sent > 0 ? 1 : 0;
  while (connection->output.size() > kept) {
    connection->unsent_bytes -= static_cast<int64_t>(connection->output.back()->size());
    connection->output.pop_back();
  }
  connection->keeps_streaming = false;
  Put(*connection, std::make_shared<const std::string>(last_words));
}

void HttpServer::EndStream(RequestId id) {
  Connection* const connection = Find(id, State::kStreaming);
  if (connection == nullptr) return;
  connection->keeps_streaming = false;
  if (connection->output.empty()) AfterAnswer(*connection);
}

void HttpServer::Put(Connection& connection, std::shared_ptr<const std::string> bytes) {
  if (connection.output.empty()) connection.since = now_;
  connection.unsent_bytes += static_cast<int64_t>(bytes->size());
  connection.output.push_back(std::move(bytes));
  if (connection.output.size() == 1) Flush(connection);
}

void HttpServer::Flush(Connection& connection) {
  using Result = ByteChannel::Result;
  while (!connection.output.empty()) {
    const absl::string_view rest = absl::string_view(*connection.output.front()).substr(connection.sent);
    size_t wrote = 0;
    const Result result = connection.channel.Write(rest, &wrote);
    if (result == Result::kClosed) return End(connection);
    if (result != Result::kDone) return Wait(connection, result == Result::kWantRead ? EPOLLIN : EPOLLOUT);
    connection.since = now_;
    connection.sent += wrote;
    connection.unsent_bytes -= static_cast<int64_t>(wrote);
    if (connection.sent == connection.output.front()->size()) {
      connection.output.pop_front();
      connection.sent = 0;
    }
  }
  if (connection.state == State::kWriting || (connection.state == State::kStreaming && !connection.keeps_streaming)) {
    AfterAnswer(connection);
  } else {
    Wait(connection, EPOLLIN);
  }
}

void HttpServer::AfterAnswer(Connection& connection) {
  connection.since = now_;
  if (connection.state == State::kStreaming) {
    --streams_;
    requests_.erase(connection.request);
    stream_end_(connection.request);
  }
  if (!connection.keeps) {
    connection.state = State::kLingering;
    connection.channel.EndWriting();
    return Wait(connection, EPOLLIN);
  }
  connection.state = State::kReading;
  ListenAgain(true);                     // it may make room now
  if (connection.is_processing) return;  // who processes goes on with what has come meanwhile
  Wait(connection, EPOLLIN);
  ReadRequests(connection);
  // TLS may hold bytes that the socket does not tell of any more.
  if (connection.state == State::kReading) ReadInput(connection);
}

void HttpServer::Wait(Connection& connection, uint32_t events) {
  if (connection.events == events || !connections_.contains(connection.channel.fd())) return;
  connection.events = events;
  loop_->SetEvents(connection.channel.fd(), events);
}

void HttpServer::End(Connection& connection) {
  const auto found = connections_.find(connection.channel.fd());
  if (found == connections_.end() || found->second.get() != &connection) return;
  loop_->Forget(connection.channel.fd());
  requests_.erase(connection.request);
  ended_.push_back(std::move(found->second));
  connections_.erase(found);
  const bool was_stream = connection.state == State::kStreaming;
  // Nobody may find it useful any more; its socket closes when it is dropped.
  connection.state = State::kLingering;
  if (was_stream) {
    --streams_;
    stream_end_(connection.request);
  }
  ListenAgain(true);
}

// The connection to end if there is no room; null if all are busy.
HttpServer::Connection* HttpServer::OldestIdle() {
  Connection* oldest = nullptr;
  for (const auto& [fd, connection] : connections_) {
    const bool is_idle =
        connection->state == State::kLingering || (connection->state == State::kReading && connection->input.empty());
    if (is_idle && (oldest == nullptr || connection->since < oldest->since)) oldest = connection.get();
  }
  return oldest;
}

void HttpServer::Close() {
  is_closed_ = true;
  ListenAgain(false);
  std::vector<RequestId> open;
  for (const auto& [id, connection] : requests_) open.push_back(id);
  for (const RequestId id : open) EndStream(id);
  while (Connection* idle = OldestIdle()) End(*idle);
}

void HttpServer::Tick(absl::Duration now) {
  now_ = now;
  ended_.clear();
  std::vector<Connection*> late;
  std::vector<RequestId> unanswered;
  for (const auto& [fd, connection] : connections_) {
    const absl::Duration age = now - connection->since;
    switch (connection->state) {
      case State::kHandshake:
        if (age > options_.request_time) late.push_back(connection.get());
        break;
      case State::kReading:
        if (age > (connection->input.empty() ? options_.idle_time : options_.request_time)) {
          late.push_back(connection.get());
        }
        break;
      case State::kAnswering:
        if (age > options_.answer_time) unanswered.push_back(connection->request);
        break;
      case State::kWriting:
        if (age > options_.write_time) late.push_back(connection.get());
        break;
      case State::kStreaming:
        if (!connection->output.empty() && age > options_.write_time) late.push_back(connection.get());
        break;
      case State::kLingering:
        if (age > kLinger) late.push_back(connection.get());
        break;
    }
  }
  for (Connection* connection : late) End(*connection);
  for (const RequestId id : unanswered) Reply(id, PlainText(503, "the coordinator is too busy to answer"));
  if (connections() < options_.max_connections) ListenAgain(true);
}

}  // namespace trainyard::coordinator
