#include "coordinator/web/web_view.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/web/http_server.h"
#include "coordinator/web/live_feed.h"
#include "coordinator/web/page_files.h"
#include "coordinator/web/web_api.h"

namespace trainyard::coordinator {
namespace {

constexpr absl::Duration kTurn = absl::Milliseconds(100);
constexpr absl::Duration kIdleTurn = absl::Seconds(1);

// No script, style or connection but our own files; nobody may frame the page or learn where it was left for.
const HttpHeaders& SafetyHeaders() {
  static const auto* const kHeaders = new HttpHeaders{
      {"Content-Security-Policy",
       "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
       "form-action 'none'; frame-ancestors 'none'"},
      {"X-Content-Type-Options", "nosniff"},
      {"X-Frame-Options", "DENY"},
      {"Referrer-Policy", "no-referrer"},
      {"Cross-Origin-Opener-Policy", "same-origin"},
      {"Cross-Origin-Resource-Policy", "same-origin"}};
  return *kHeaders;
}

class View final : public WebView {
 public:
  View(const WebViewOptions& options, const WebViewParts& parts)
      : options_(options),
        hub_(parts.hub),
        api_(parts, &loop_, [this](RequestId id, const HttpResponse& response) { server_->Reply(id, response); }) {}
  ~View() override { Stop(); }

  absl::Status Open();
  int port() const override { return server_->port(); }
  void Stop() override;

 private:
  using RequestId = HttpServer::RequestId;

  void Run();
  void Handle(RequestId id, const HttpRequest& request);
  bool IsForUs(const HttpRequest& request) const;
  HttpResponse File(const PageFile& file, const HttpRequest& request) const;
  absl::Status Events(RequestId id, const HttpRequest& request);

  const WebViewOptions options_;
  WatchHub* const hub_;
  EventLoop loop_;
  WebApi api_;
  std::unique_ptr<TlsAcceptor> tls_;
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<LiveFeed> feed_;
  absl::Duration now_ = absl::ZeroDuration();
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

absl::Status View::Open() {
  const TlsFiles& files = options_.security.tls;
  if (files.is_set()) {
    TY_ASSIGN_OR_RETURN(tls_, TlsAcceptor::Create(files));
  } else {
    TY_RETURN_IF_ERROR(CheckPlaintext(options_.listen, options_.security));
  }
  TY_ASSIGN_OR_RETURN(server_, HttpServer::Create(
                                   {.listen = options_.listen,
                                    .tls = tls_.get(),
                                    .headers = SafetyHeaders(),
                                    .max_connections = options_.max_connections,
                                    .max_streams = options_.max_streams},
                                   &loop_, [this](RequestId id, const HttpRequest& request) { Handle(id, request); },
                                   [this](RequestId id) {
                                     if (feed_ != nullptr) feed_->Ended(id);
                                   }));
  feed_ = std::make_unique<LiveFeed>(
      LiveFeedOptions(), hub_, &loop_,
      LiveFeed::Outlet{.send = [this](RequestId id, std::shared_ptr<const std::string> event,
                                      const std::string& last) { server_->Send(id, std::move(event), last); },
                       .end = [this](RequestId id) { server_->EndStream(id); }});
  thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

void View::Stop() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  loop_.Post([] {});
  thread_.join();
}

void View::Run() {
  // OpenSSL writes to sockets whose peer has gone.
  sigset_t broken_pipe;
  sigemptyset(&broken_pipe);
  sigaddset(&broken_pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &broken_pipe, nullptr);
  now_ = RealClock()->Monotonic();
  server_->Tick(now_);
  absl::Duration next_second = now_ + absl::Seconds(1), next_certificate = now_ + options_.certificate_interval;
  while (!stopping_) {
    loop_.RunOnce(feed_->streams() > 0 ? kTurn : kIdleTurn);
    now_ = RealClock()->Monotonic();
    feed_->Tick(now_);
    if (now_ >= next_second) {
      next_second = now_ + absl::Seconds(1);
      server_->Tick(now_);
    }
    if (tls_ != nullptr && now_ >= next_certificate) {
      next_certificate = now_ + options_.certificate_interval;
      tls_->Refresh();
    }
  }
  server_->Close();
}

// ---- who and what ----

bool View::IsForUs(const HttpRequest& request) const {
  if (options_.security.tls.is_set() || options_.security.insecure) return true;
  const std::string& host = request.Header("host");
  return host.empty() || IsLoopback(host.find(':') == std::string::npos ? host + ":" : host);
}

void View::Handle(RequestId id, const HttpRequest& request) {
  if (!IsForUs(request)) {
    HttpResponse refusal =
        FailureResponse(absl::PermissionDeniedError("plaintext is served under loopback names only"));
    refusal.status = 403;
    server_->Reply(id, refusal);
    return;
  }
  if (absl::StartsWith(request.path, "/api/")) {
    const absl::Status status = request.path == "/api/events"
                                    ? Events(id, request)
                                    : api_.Handle(id, request, absl::StrSplit(request.path.substr(5), '/'));
    if (!status.ok()) server_->Reply(id, FailureResponse(status));
    return;
  }
  const std::string path = request.path == "/" ? "/index.html" : request.path;
  for (const PageFile& file : PageFiles()) {
    if (file.path == absl::string_view(path)) {
      server_->Reply(id, File(file, request));
      return;
    }
  }
  server_->Reply(id, FailureResponse(absl::NotFoundError("there is no such page")));
}

HttpResponse View::File(const PageFile& file, const HttpRequest& request) const {
  HttpResponse response{.type = std::string(file.type),
                        .headers = {{"ETag", std::string(file.etag)}, {"Cache-Control", "no-cache"}}};
  const std::vector<std::string> known = absl::StrSplit(request.Header("if-none-match"), absl::ByAnyChar(", "));
  if (std::find(known.begin(), known.end(), std::string(file.etag)) != known.end()) {
    response.status = 304;
  } else {
    response.body = std::string(file.content);
  }
  return response;
}

// ---- events ----

absl::Status View::Events(RequestId id, const HttpRequest& request) {
  // What a browser that reconnects has seen last goes before what its page was opened with.
  const std::string& last = request.Header("last-event-id");
  const std::string& text = last.empty() ? request.Query("after") : last;
  uint64_t after = 0;
  if (!text.empty() && !absl::SimpleAtoi(text, &after)) {
    return absl::InvalidArgumentError(absl::StrCat("after: \"", text, "\" is not a revision"));
  }
  if (request.is_head) {
    server_->Reply(id, {.type = "text/event-stream"});
    return absl::OkStatus();
  }
  if (!server_->BeginStream(id)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("as many pages are live as the coordinator allows (", options_.max_streams, ")"));
  }
  feed_->Open(id, request.Query("job"), after);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<WebView>> WebView::Start(const WebViewOptions& options, const WebViewParts& parts) {
  auto view = std::make_unique<View>(options, parts);
  TY_RETURN_IF_ERROR(view->Open());
  return std::unique_ptr<WebView>(std::move(view));
}

}  // namespace trainyard::coordinator
