// The view of a whole coordinator, over plaintext and over mutual TLS: who gets in, what is answered, what is live.
#include "coordinator/web/web_view.h"

#include <arpa/inet.h>
#include <grpcpp/grpcpp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/unique_fd.h"
#include "client/certificates.h"
#include "coordinator/testing/test_coordinator.h"
#include "coordinator/web/tls_acceptor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/rpc/channel.h"
#include "proto/v1/coordinator.grpc.pb.h"

namespace trainyard::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

// One connection, plaintext or TLS.
class Wire {
 public:
  // `files`: what the client shows; null: plaintext. An empty cert shows nothing.
  explicit Wire(const std::string& address, const TlsFiles* files = nullptr) {
    int port = 0;
    EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd_.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    timeval limit = {.tv_sec = 10, .tv_usec = 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    EXPECT_EQ(connect(fd_.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    if (files == nullptr) return;
    context_.reset(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
    SSL_CTX_load_verify_file(context_.get(), files->ca.c_str());
    if (!files->cert.empty()) {
      SSL_CTX_use_certificate_chain_file(context_.get(), files->cert.c_str());
      SSL_CTX_use_PrivateKey_file(context_.get(), files->key.c_str(), SSL_FILETYPE_PEM);
    }
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_fd(ssl_.get(), fd_.get());
    is_refused_ = SSL_connect(ssl_.get()) != 1;
  }

  bool Send(const std::string& bytes) {
    if (is_refused_) return false;
    if (ssl_ != nullptr) return SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size())) > 0;
    return send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0;
  }
  // Until the server has sent something.
  void AwaitBytes() {
    pollfd wait = {.fd = fd_.get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&wait, 1, 10'000), 1);
  }
  // What has come when `wanted` is in it, or the end.
  const std::string& ReadUntil(const std::string& wanted) {
    char buffer[8192];
    while (!is_refused_ && text_.find(wanted) == std::string::npos) {
      const ssize_t got =
          ssl_ != nullptr ? SSL_read(ssl_.get(), buffer, sizeof(buffer)) : recv(fd_.get(), buffer, sizeof(buffer), 0);
      if (got <= 0) {
        char text[256] = "";
        if (ssl_ != nullptr) ERR_error_string_n(ERR_get_error(), text, sizeof(text));
        error_ = text;
        break;
      }
      text_.append(buffer, static_cast<size_t>(got));
    }
    return text_;
  }
  const std::string& ReadAll() { return ReadUntil("\x01 never sent"); }
  // Of TLS, why nothing more has come.
  const std::string& error() const { return error_; }

 private:
  UniqueFd fd_;
  TlsContext context_;
  TlsSession ssl_;
  bool is_refused_ = false;
  std::string text_, error_;
};

struct Answer {
  int status = 0;
  std::string head, body;
};

class WebViewTest : public ::testing::Test {
 protected:
  WebViewTest() { signal(SIGPIPE, SIG_IGN); }

  absl::Status Start(CoordinatorOptions options = OptionsForTests("")) {
    server_ = nullptr;
    options.data_dir = dir_.Join("data");
    auto server = CoordinatorServer::Start(options);
    if (!server.ok()) return server.status();
    server_ = *std::move(server);
    if (!options.tls.is_set()) stub_ = v1::Jobs::NewStub(*MakeChannel(server_->address(), {}));
    return absl::OkStatus();
  }

  Answer Get(const std::string& target, const std::string& more = "", const std::string& method = "GET") {
    Wire wire(server_->web_address());
    wire.Send(absl::StrCat(method, " ", target, " HTTP/1.1\r\n", more.find("Host:") == 0 ? "" : "Host: localhost\r\n",
                           more, "Connection: close\r\n\r\n"));
    return Split(wire.ReadAll());
  }
  static Answer Split(const std::string& text) {
    Answer answer;
    const size_t end = text.find("\r\n\r\n");
    if (end == std::string::npos) return answer;
    answer.head = text.substr(0, end);
    answer.body = text.substr(end + 4);
    EXPECT_TRUE(absl::SimpleAtoi(text.substr(9, 3), &answer.status)) << text.substr(0, 40);
    return answer;
  }
  Json GetJson(const std::string& target) {
    const Answer answer = Get(target);
    EXPECT_EQ(answer.status, 200) << target << ": " << answer.body;
    return Json::parse(answer.body, nullptr, false);
  }

  std::string Submit(const std::string& name) {
    v1::SubmitRequest request;
    *request.mutable_spec() = SpecForTests(name);
    (*request.mutable_spec()->mutable_labels())["note"] = "</script><script>alert(1)</script>";
    grpc::ClientContext context;
    v1::SubmitResponse response;
    const grpc::Status status = stub_->Submit(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.job().uid();
  }
  std::unique_ptr<FakeWorker> Worker(const std::string& id, int slots) {
    return FakeWorker::Start({.coordinator = server_->address(), .worker_id = id, .slots = slots});
  }

  // A CA in a folder, with one certificate for both ends.
  TlsFiles MakeCertificates(const std::string& folder) {
    const std::string path = dir_.Join(folder);
    EXPECT_OK(MakeDirs(path));
    const auto authority = client::MakeAuthority("CA of " + folder, 30);
    const auto issued = client::Issue(*authority, {.common_name = "part", .hosts = {"127.0.0.1"}, .days = 30});
    const TlsFiles files{JoinPath(path, "tls.crt"), JoinPath(path, "tls.key"), JoinPath(path, "ca.crt")};
    EXPECT_OK(WriteFileAtomic(files.cert, issued->certificate));
    EXPECT_OK(WriteFileAtomic(files.key, issued->key));
    EXPECT_OK(WriteFileAtomic(files.ca, authority->certificate));
    return files;
  }
  Answer GetTls(const std::string& target, const TlsFiles& files) {
    Wire wire(server_->web_address(), &files);
    wire.Send(absl::StrCat("GET ", target, " HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n"));
    return Split(wire.ReadAll());
  }

  TempDir dir_;
  std::unique_ptr<CoordinatorServer> server_;
  std::unique_ptr<v1::Jobs::Stub> stub_;
};

TEST_F(WebViewTest, ServesThePageWithSafetyHeadersAndValidators) {
  ASSERT_OK(Start());
  const Answer page = Get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_THAT(page.body, StartsWith("<!doctype html>"));
  EXPECT_THAT(page.head, HasSubstr("Content-Security-Policy: default-src 'none'; script-src 'self'"));
  EXPECT_THAT(page.head, Not(HasSubstr("unsafe")));
  EXPECT_THAT(page.head, HasSubstr("X-Content-Type-Options: nosniff"));
  EXPECT_THAT(page.head, HasSubstr("Cache-Control: no-cache"));
  // What the policy forbids is not in the page either.
  EXPECT_THAT(page.body, Not(HasSubstr("<style")));
  EXPECT_THAT(page.body, Not(HasSubstr(" style=")));
  EXPECT_THAT(page.body, Not(HasSubstr("://")));

  const size_t begin = page.head.find("ETag: ") + 6;
  const std::string etag = page.head.substr(begin, page.head.find("\r\n", begin) - begin);
  EXPECT_EQ(Get("/", "If-None-Match: \"other\", " + etag + "\r\n").status, 304);
  EXPECT_EQ(Get("/", "If-None-Match: \"other\"\r\n").status, 200);
  EXPECT_THAT(Get("/app.js").head, HasSubstr("Content-Type: text/javascript"));
  EXPECT_EQ(Get("/", "", "HEAD").body, "");
  EXPECT_THAT(Get("/api/jobs").head, HasSubstr("Cache-Control: no-store"));
}

TEST_F(WebViewTest, RefusesWhatIsNotThere) {
  ASSERT_OK(Start());
  EXPECT_EQ(Get("/", "", "POST").status, 405);
  EXPECT_EQ(Get("/", "", "DELETE").status, 405);
  for (const char* path :
       {"/nothing", "/../etc/passwd", "/%2e%2e/etc/passwd", "/api/", "/api/nothing", "/api/jobs/u/x",
        "/api/jobs/u/metrics/more", "/index.html/", "/api/jobs/no-such-job", "/api/jobs/no-such-job/metrics",
        "/api/jobs/no-such-job/logs", "/api/jobs/..%2f..%2fetc/logs", "/api/jobs/no-such-job/generations",
        "/api/jobs/no-such-job/trials"}) {
    EXPECT_EQ(Get(path).status, 404) << path;
  }
  for (const char* target :
       {"/api/jobs?page_size=0", "/api/jobs?page_size=99999999999999999999", "/api/jobs?page_token=x",
        "/api/jobs?filter=nonsense", "/api/workers?offset=-1", "/api/queue?limit=1e3",
        "/api/jobs/u/logs?rank=99999999999999999999", "/api/jobs/u/logs?stream=../x", "/api/jobs/u/trials?generation=x",
        "/api/jobs/u/metrics?max_points=100000", "/api/events?after=-1", "/api/events?after=99999999999999999999"}) {
    const Answer answer = Get(target);
    EXPECT_EQ(answer.status, 400) << target;
    EXPECT_FALSE(Json::parse(answer.body)["error"]["message"].get<std::string>().empty()) << target;
  }
  EXPECT_EQ(Get("/api/jobs/" + std::string(3000, 'u')).status, 404);
  EXPECT_EQ(Get("/api/jobs/" + std::string(9000, 'u')).status, 414);
}

TEST_F(WebViewTest, PlaintextAnswersToLoopbackNamesOnly) {
  ASSERT_OK(Start());
  for (const char* host : {"localhost", "localhost:7072", "127.0.0.1:80", "[::1]:7072"}) {
    EXPECT_EQ(Get("/api/jobs", absl::StrCat("Host: ", host, "\r\n")).status, 200) << host;
  }
  for (const char* host : {"evil.example", "evil.example:7072", "127.0.0.1.evil.example"}) {
    EXPECT_EQ(Get("/api/jobs", absl::StrCat("Host: ", host, "\r\n")).status, 403) << host;
  }
}

TEST_F(WebViewTest, PlaintextBeyondLoopbackNeedsTheFlag) {
  CoordinatorOptions options = OptionsForTests("");
  options.web_listen = "0.0.0.0:0";
  const absl::Status refused = Start(options);
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--insecure"));
  options.insecure = true;
  ASSERT_OK(Start(options));
  EXPECT_EQ(Get("/api/jobs", "Host: any.example\r\n").status, 200);
}

TEST_F(WebViewTest, TellsOfJobsQueueAndWorkers) {
  ASSERT_OK(Start());
  const std::string first = Submit("first"), second = Submit("second");
  const Json queue = GetJson("/api/queue");
  EXPECT_EQ(queue["total"], 2);
  ASSERT_EQ(queue["jobs"].size(), 2u);
  EXPECT_EQ(queue["jobs"][0]["uid"], first);  // in the order of placement, not newest first
  EXPECT_EQ(queue["jobs"][0]["pending"]["code"], "CODE_NOT_ENOUGH_SLOTS");
  EXPECT_EQ(queue["jobs"][1]["queuePosition"], 2);
  EXPECT_EQ(GetJson("/api/jobs")["jobs"][0]["uid"], second);
  const Json page = GetJson("/api/jobs?page_size=1");
  ASSERT_EQ(page["jobs"].size(), 1u);
  const Json rest = GetJson("/api/jobs?page_size=1&page_token=" + page["nextPageToken"].get<std::string>());
  EXPECT_EQ(rest["jobs"][0]["uid"], first);
  EXPECT_EQ(GetJson("/api/jobs?filter=state%21%3DQUEUED").value("jobs", Json::array()).size(), 0u);

  const auto worker = Worker("w1", 1);
  const auto assign = worker->Await(IsAssign);
  ASSERT_TRUE(assign.has_value());
  ASSERT_TRUE(worker->Await(IsStart).has_value());
  v1::WorkerMessage message;
  v1::ProgressReport& report = *message.mutable_progress();
  *report.mutable_ref() = assign->assign().ref();
  report.mutable_progress()->set_step(3);
  for (int step = 1; step <= 3; ++step) {
    v1::MetricSample& sample = *report.add_samples();
    sample.set_step(step);
    (*sample.mutable_values())["loss"] = 4.0 - step;
  }
  worker->Send(message);
  v1::WorkerMessage log;
  *log.mutable_log()->mutable_ref() = assign->assign().ref();
  log.mutable_log()->set_stream("stderr");
  log.mutable_log()->set_data("hello <b>\xFF");
  worker->Send(log);
  ASSERT_TRUE(worker->Await(IsLogAck).has_value());

  Json metrics = Json::object();
  for (int i = 0; i < 100 && metrics.value("steps", Json::array()).size() < 3; ++i) {
    metrics = GetJson("/api/jobs/" + first + "/metrics?names=loss");
    absl::SleepFor(absl::Milliseconds(50));
  }
  EXPECT_EQ(metrics["values"]["loss"], Json::parse("[3, 2, 1]"));
  EXPECT_EQ(GetJson("/api/jobs/" + first + "/metrics?after_step=2")["steps"], Json::parse("[3]"));
  const Json tail = GetJson("/api/jobs/" + first + "/logs?offset=-5");
  std::string data;
  ASSERT_TRUE(absl::Base64Unescape(tail["frames"][0]["data"].get<std::string>(), &data));
  EXPECT_EQ(data, " <b>\xFF");
  EXPECT_EQ(tail["nextOffset"], "10");
  EXPECT_EQ(Get("/api/jobs/" + first + "/logs?attempt=2").status, 404);
  EXPECT_EQ(Get("/api/jobs/" + first + "/logs?rank=1").status, 404);
  const Json job = GetJson("/api/jobs/" + first)["job"];
  EXPECT_EQ(job["spec"]["labels"]["note"], "</script><script>alert(1)</script>");
  EXPECT_EQ(GetJson("/api/workers")["workers"][0]["slots"][0]["jobUid"], first);
  const Json overview = GetJson("/api/overview");
  EXPECT_EQ(overview["jobs"]["QUEUED"], 1);
  EXPECT_EQ(overview["workers"]["READY"], 1);
  EXPECT_EQ(GetJson("/api/jobs/" + first + "/generations")["generations"].size(), 0u);
}

TEST_F(WebViewTest, EventsFollowAListAndGoOnAfterABreak) {
  ASSERT_OK(Start());
  Submit("before");
  const std::string revision = GetJson("/api/jobs")["revision"].get<std::string>();
  Wire live(server_->web_address());
  live.Send("GET /api/events?after=" + revision + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(live.ReadUntil("event: hello"), HasSubstr("text/event-stream"));
  const std::string uid = Submit("after");
  EXPECT_THAT(live.ReadUntil("\"after\""), HasSubstr("event: job"));
  EXPECT_THAT(live.ReadUntil(uid), Not(HasSubstr("\"before\"")));

  // A browser that comes back says what it saw last, and gets what it missed; one that saw all gets nothing twice.
  Wire again(server_->web_address());
  again.Send("GET /api/events?after=0 HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: " + revision + "\r\n\r\n");
  EXPECT_THAT(again.ReadUntil(uid), HasSubstr("\"after\""));
  // A page of one job hears of that job only.
  Wire one(server_->web_address());
  one.Send("GET /api/events?job=" + uid + "&after=" + GetJson("/api/jobs")["revision"].get<std::string>() +
           " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  one.ReadUntil("event: hello");
  Submit("third");
  v1::JobActionRequest cancel;
  cancel.set_job(uid);
  grpc::ClientContext context;
  v1::Job job;
  ASSERT_TRUE(stub_->Cancel(&context, cancel, &job).ok());
  EXPECT_THAT(one.ReadUntil("JOB_STATE_CANCELLED"), Not(HasSubstr("third")));
  EXPECT_THAT(live.ReadUntil("JOB_STATE_CANCELLED"), HasSubstr("third"));

  // A revision that has not been, as after a restore from an older copy: list again.
  Wire ahead(server_->web_address());
  ahead.Send("GET /api/events?after=18446744073709551615 HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(ahead.ReadAll(), HasSubstr("event: reload"));
  server_->Stop(absl::Seconds(5));
  EXPECT_THAT(live.ReadAll(), HasSubstr("event: reload"));
}

TEST_F(WebViewTest, AfterARestartWhatIsNotKeptIsListedAgain) {
  ASSERT_OK(Start());
  Submit("one");
  const std::string revision = GetJson("/api/jobs")["revision"].get<std::string>();
  Submit("two");
  ASSERT_OK(Start());
  Wire old(server_->web_address());
  old.Send("GET /api/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: " + revision + "\r\n\r\n");
  EXPECT_THAT(old.ReadAll(), HasSubstr("event: reload"));
  Wire fresh(server_->web_address());
  fresh.Send("GET /api/events?after=" + GetJson("/api/jobs")["revision"].get<std::string>() +
             " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  EXPECT_THAT(fresh.ReadUntil("event: hello"), HasSubstr("event: hello"));
}

TEST_F(WebViewTest, ThereAreSoManyStreamsAndNoMore) {
  ASSERT_OK(Start());
  std::vector<std::unique_ptr<Wire>> streams;
  for (int i = 0; i < WebViewOptions().max_streams; ++i) {
    streams.push_back(std::make_unique<Wire>(server_->web_address()));
    streams.back()->Send("GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    ASSERT_THAT(streams.back()->ReadUntil("event: hello"), HasSubstr("event: hello")) << i;
  }
  EXPECT_EQ(Get("/api/events").status, 503);
  EXPECT_EQ(Get("/api/jobs").status, 200);
}

TEST_F(WebViewTest, MutualTlsAsOnTheOtherPort) {
  CoordinatorOptions options = OptionsForTests("");
  options.tls = MakeCertificates("ours");
  options.web_listen = "0.0.0.0:0";
  ASSERT_OK(Start(options));
  EXPECT_EQ(GetTls("/", options.tls).status, 200);
  EXPECT_EQ(GetTls("/api/overview", options.tls).status, 200);
  TlsFiles nothing{"", "", options.tls.ca};
  EXPECT_EQ(GetTls("/", nothing).status, 0);
  TlsFiles foreign = MakeCertificates("foreign");
  foreign.ca = options.tls.ca;
  EXPECT_EQ(GetTls("/", foreign).status, 0);
  // In TLS 1.3 the refusal comes when the client thinks that the handshake is over and talks; it still hears why.
  Wire refused(server_->web_address(), &nothing);
  refused.AwaitBytes();
  EXPECT_TRUE(refused.Send("GET / HTTP/1.1\r\n"));
  EXPECT_TRUE(refused.Send("Host: any\r\n\r\n"));
  EXPECT_EQ(refused.ReadAll(), "");
  EXPECT_THAT(refused.error(), HasSubstr("certificate required"));
  // Plaintext on the TLS port gets nothing at all.
  EXPECT_EQ(Get("/").status, 0);
  Wire live(server_->web_address(), &options.tls);
  live.Send("GET /api/events HTTP/1.1\r\nHost: any\r\n\r\n");
  EXPECT_THAT(live.ReadUntil("event: hello"), HasSubstr("event: hello"));
}

TEST_F(WebViewTest, CertificatesAreTakenWhenTheyChange) {
  const TlsFiles files = MakeCertificates("first");
  ASSERT_OK_AND_ASSIGN(const auto acceptor, TlsAcceptor::Create(files));
  EXPECT_FALSE(acceptor->Refresh());
  const TlsFiles next = MakeCertificates("second");
  const auto replace = [&](const std::string& from, const std::string& to) {
    ASSERT_OK_AND_ASSIGN(const std::string content, ReadFile(from));
    EXPECT_OK(WriteFileAtomic(to, content));
  };
  // Half of a renewal does not fit together, and changes nothing.
  replace(next.cert, files.cert);
  EXPECT_FALSE(acceptor->Refresh());
  EXPECT_NE(acceptor->NewSession(), nullptr);
  replace(next.key, files.key);
  replace(next.ca, files.ca);
  EXPECT_TRUE(acceptor->Refresh());
  EXPECT_FALSE(acceptor->Refresh());
}

}  // namespace
}  // namespace trainyard::coordinator
