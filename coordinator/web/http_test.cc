// Requests as bytes, and the server over real sockets in one process: what is refused, what is bounded.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/testing/status_matchers.h"
#include "coordinator/web/http_request.h"
#include "coordinator/web/http_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Outcome = ParsedHead::Outcome;

// ---- ParseHead ----

TEST(ParseHeadTest, ReadsPathQueryAndHeaders) {
  const ParsedHead head = ParseHead("GET /a%20b/c?x=1&y=a+%26b&x=2&z HTTP/1.1\r\nHost: h\r\nX-Thing:  v \r\n\r\nrest");
  ASSERT_EQ(head.outcome, Outcome::kRequest);
  EXPECT_EQ(head.request.path, "/a b/c");
  EXPECT_EQ(head.request.Query("x"), "1");
  EXPECT_EQ(head.request.Query("y"), "a &b");
  EXPECT_EQ(head.request.Query("z"), "");
  EXPECT_EQ(head.request.Header("x-thing"), "v");
  EXPECT_TRUE(head.request.keeps_connection);
  EXPECT_EQ(head.bytes,
            std::string("GET /a%20b/c?x=1&y=a+%26b&x=2&z HTTP/1.1\r\nHost: h\r\nX-Thing:  v \r\n\r\n").size());
}

TEST(ParseHeadTest, WaitsForTheWholeHead) {
  const std::string whole = "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(ParseHead(whole.substr(0, size)).outcome, Outcome::kIncomplete) << size;
  }
  const ParsedHead head = ParseHead(whole);
  ASSERT_EQ(head.outcome, Outcome::kRequest);
  EXPECT_TRUE(head.request.is_head);
  EXPECT_FALSE(head.request.keeps_connection);  // HTTP/1.0
}

TEST(ParseHeadTest, RefusesWhatItDoesNotSpeak) {
  const auto status = [](const std::string& input) {
    const ParsedHead head = ParseHead(input);
    return head.outcome == Outcome::kRefused ? head.status : 0;
  };
  const std::string host = "\r\nHost: h\r\n\r\n";
  EXPECT_EQ(status("POST / HTTP/1.1" + host), 405);
  EXPECT_EQ(status("DELETE / HTTP/1.1" + host), 405);
  EXPECT_EQ(status("GET / HTTP/2.0" + host), 505);
  EXPECT_EQ(status("GET / HTTPS" + host), 400);
  EXPECT_EQ(status("GET /" + host), 400);
  EXPECT_EQ(status("GET http://h/ HTTP/1.1" + host), 400);
  EXPECT_EQ(status("GET /%zz HTTP/1.1" + host), 400);
  EXPECT_EQ(status("GET /%00 HTTP/1.1" + host), 400);
  EXPECT_EQ(status("GET /\xC3\xA4 HTTP/1.1" + host), 400);
  EXPECT_EQ(status("GET / HTTP/1.1\r\n\r\n"), 400);                        // no Host
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);  // two
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"), 400);  // a header over two lines
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), 400);            // a space before the colon
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: a\x01\r\n\r\n"), 400);
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"), 413);
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), 413);
}

TEST(ParseHeadTest, BoundsEverything) {
  const std::string long_target = "GET /" + std::string(5000, 'a');
  EXPECT_EQ(ParseHead(long_target).status, 414);  // without waiting for its end
  EXPECT_EQ(ParseHead(long_target + " HTTP/1.1\r\nHost: h\r\n\r\n").status, 414);
  std::string many = "GET / HTTP/1.1\r\nHost: h\r\n";
  for (int i = 0; i < 200; ++i) absl::StrAppend(&many, "X-", i, ": v\r\n");
  EXPECT_EQ(ParseHead(many + "\r\n").status, 431);
  EXPECT_EQ(ParseHead("GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(20'000, 'v')).status, 431);
  std::string query = "GET /?";
  for (int i = 0; i < 40; ++i) absl::StrAppend(&query, "q", i, "=1&");
  EXPECT_EQ(ParseHead(query + " HTTP/1.1\r\nHost: h\r\n\r\n").status, 400);
}

// ---- HttpServer ----

class Client {
 public:
  explicit Client(int port) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    timeval limit = {.tv_sec = 10, .tv_usec = 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    EXPECT_EQ(connect(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  void Send(const std::string& bytes) { send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  // Until `wanted` is in it, or the server closes; a time limit ends it too.
  std::string ReadUntil(const std::string& wanted) {
    char buffer[4096];
    while (text_.find(wanted) == std::string::npos) {
      const ssize_t got = recv(fd_.get(), buffer, sizeof(buffer), 0);
      if (got <= 0) break;
      text_.append(buffer, static_cast<size_t>(got));
    }
    return text_;
  }
  std::string ReadAll() { return ReadUntil("\x01 never sent"); }
  // Has the server closed it, with nothing more to read?
  bool IsClosed() {
    char byte;
    return recv(fd_.get(), &byte, 1, 0) == 0;
  }

 private:
  UniqueFd fd_;
  std::string text_;
};

std::string GetText(const std::string& target, const std::string& more = "") {
  return "GET " + target + " HTTP/1.1\r\nHost: localhost\r\n" + more + "\r\n";
}

class HttpServerTest : public ::testing::Test {
 protected:
  void Start(HttpServerOptions options) {
    if (options.listen.empty()) options.listen = "127.0.0.1:0";
    options.headers = {{"X-Always", "yes"}};
    auto server = HttpServer::Create(
        options, &loop_,
        [this](HttpServer::RequestId id, const HttpRequest& request) {
          if (request.path == "/stream") {
            if (server_->BeginStream(id)) {
              streams_.push_back(id);
            } else {
              server_->Reply(id, {.status = 503, .body = "full"});
            }
          } else if (request.path == "/later") {
            loop_.Post([this, id] { server_->Reply(id, {.body = "later"}); });
          } else if (request.path != "/never") {
            server_->Reply(id, {.body = absl::StrCat("path ", request.path)});
          }
        },
        [this](HttpServer::RequestId) { ++ended_; });
    ASSERT_OK(server);
    server_ = *std::move(server);
    thread_ = std::thread([this] {
      while (!stopping_) {
        server_->Tick(RealClock()->Monotonic());
        loop_.RunOnce(absl::Milliseconds(20));
      }
    });
  }
  void TearDown() override {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  // Runs `work` on the server's thread.
  void OnLoop(const std::function<void()>& work) {
    std::atomic<bool> done{false};
    loop_.Post([&] {
      work();
      done = true;
    });
    while (!done) absl::SleepFor(absl::Milliseconds(1));
  }

  EventLoop loop_;
  std::unique_ptr<HttpServer> server_;
  std::vector<HttpServer::RequestId> streams_;
  std::atomic<int> ended_{0};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

TEST_F(HttpServerTest, AnswersOneRequestAfterTheOtherOnAConnection) {
  Start({});
  Client client(server_->port());
  // Three at once, one of which is answered late: answers come in the order of the requests.
  client.Send(GetText("/a") + GetText("/later") + GetText("/b", "Connection: close\r\n"));
  const std::string all = client.ReadAll();
  const size_t a = all.find("path /a"), later = all.find("later"), b = all.find("path /b");
  ASSERT_NE(b, std::string::npos) << all;
  EXPECT_LT(a, later);
  EXPECT_LT(later, b);
  EXPECT_THAT(all, HasSubstr("X-Always: yes"));
  EXPECT_THAT(all, HasSubstr("Cache-Control: no-store"));
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  Start({});
  Client client(server_->port());
  client.Send("HEAD /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  const std::string all = client.ReadAll();
  EXPECT_THAT(all, HasSubstr("Content-Length: 7"));
  EXPECT_THAT(all, Not(HasSubstr("path /a")));
}

TEST_F(HttpServerTest, WhatIsRefusedIsToldAndEndsTheConnection) {
  Start({});
  for (const auto& [request, status] : std::vector<std::pair<std::string, std::string>>{
           {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" + std::string(100'000, 'x'), "405"},
           {"GET / HTTP/1.1\r\nHost: h\r\nX: " + std::string(60'000, 'x') + "\r\n\r\n", "431"},
           {"\x16\x03\x01 what a TLS client says\r\n\r\n", "400"}}) {
    Client client(server_->port());
    client.Send(request);
    EXPECT_THAT(client.ReadAll(), StartsWith("HTTP/1.1 " + status));
  }
  Client client(server_->port());
  client.Send("PUT / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(client.ReadAll(), HasSubstr("Allow: GET, HEAD"));
}

TEST_F(HttpServerTest, SlowClientsAreDropped) {
  Start({.listen = "127.0.0.1:0", .request_time = absl::Milliseconds(100), .idle_time = absl::Milliseconds(100)});
  Client silent(server_->port()), slow(server_->port());
  slow.Send("GET / HTT");
  EXPECT_TRUE(silent.IsClosed());
  EXPECT_TRUE(slow.IsClosed());
}

TEST_F(HttpServerTest, AHandlerThatNeverAnswersIsToldOf) {
  Start({.listen = "127.0.0.1:0", .answer_time = absl::Milliseconds(100)});
  Client client(server_->port());
  client.Send(GetText("/never", "Connection: close\r\n"));
  EXPECT_THAT(client.ReadAll(), StartsWith("HTTP/1.1 503"));
}

TEST_F(HttpServerTest, IdleConnectionsMakeRoomAndBusyOnesDoNot) {
  Start({.listen = "127.0.0.1:0", .max_connections = 2});
  Client idle(server_->port()), busy(server_->port());
  idle.Send(GetText("/a"));
  idle.ReadUntil("path /a");
  busy.Send(GetText("/stream"));
  busy.ReadUntil("\r\n\r\n");
  Client third(server_->port());
  third.Send(GetText("/c"));
  EXPECT_THAT(third.ReadUntil("path /c"), HasSubstr("path /c"));
  EXPECT_TRUE(idle.IsClosed());
  OnLoop([&] { server_->Send(streams_.at(0), std::make_shared<const std::string>("data: 1\n\n"), ""); });
  EXPECT_THAT(busy.ReadUntil("data: 1"), HasSubstr("data: 1"));
}

TEST_F(HttpServerTest, StreamsAreCounted) {
  Start({.listen = "127.0.0.1:0", .max_streams = 2});
  auto first = std::make_unique<Client>(server_->port());
  Client second(server_->port()), third(server_->port());
  first->Send(GetText("/stream"));
  EXPECT_THAT(first->ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  second.Send(GetText("/stream"));
  second.ReadUntil("\r\n\r\n");
  third.Send(GetText("/stream"));
  EXPECT_THAT(third.ReadUntil("full"), StartsWith("HTTP/1.1 503"));
  first = nullptr;
  while (ended_ < 1) absl::SleepFor(absl::Milliseconds(1));
  third.Send(GetText("/stream"));
  EXPECT_THAT(third.ReadUntil("text/event-stream"), HasSubstr("text/event-stream"));
}

TEST_F(HttpServerTest, AStreamThatDoesNotReadGetsLastWordsAndEnds) {
  Start({.listen = "127.0.0.1:0", .stream_buffer_bytes = 100'000});
  Client client(server_->port());
  client.Send(GetText("/stream"));
  client.ReadUntil("\r\n\r\n");
  const auto event = std::make_shared<const std::string>("data: " + std::string(50'000, 'x') + "\n\n");
  for (int i = 0; i < 400; ++i) {  // far more than the kernel's buffers and ours
    OnLoop([&] { server_->Send(streams_.at(0), event, "data: last words\n\n"); });
  }
  const std::string all = client.ReadAll();
  EXPECT_THAT(all.substr(all.size() - 18), "data: last words\n\n");
  EXPECT_LT(all.size(), 400 * event->size());
  // Every event is whole: the stream is the head, then whole events, then the last words.
  EXPECT_EQ((all.size() - all.find("\r\n\r\n") - 4 - 18) % event->size(), 0u);
  EXPECT_EQ(ended_, 1);
}

TEST_F(HttpServerTest, CloseEndsStreamsAndIdleConnections) {
  Start({});
  Client stream(server_->port()), idle(server_->port());
  stream.Send(GetText("/stream"));
  stream.ReadUntil("\r\n\r\n");
  idle.Send(GetText("/a"));
  idle.ReadUntil("path /a");
  OnLoop([&] { server_->Close(); });
  EXPECT_TRUE(stream.IsClosed());
  EXPECT_TRUE(idle.IsClosed());
}

TEST_F(HttpServerTest, ATakenPortIsAnError) {
  Start({});
  const auto second =
      HttpServer::Create({.listen = absl::StrCat("127.0.0.1:", server_->port())}, &loop_, nullptr, nullptr);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(HttpServer::Create({.listen = "no port"}, &loop_, nullptr, nullptr).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace trainyard::coordinator
