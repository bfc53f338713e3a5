#include "coordinator/web/web_view.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/api/list_jobs.h"
#include "coordinator/web/documents.h"
#include "coordinator/web/http_server.h"
#include "coordinator/web/live_feed.h"
#include "coordinator/web/page_files.h"

namespace trainyard::coordinator {
namespace {

constexpr absl::Duration kTurn = absl::Milliseconds(100);
constexpr absl::Duration kIdleTurn = absl::Seconds(1);
constexpr absl::Duration kSharedFor = absl::Seconds(1);
constexpr int kMaxJobs = 200;  // rows of one answer
constexpr int kMaxWorkers = 200;
constexpr int kMaxPoints = 2000;
constexpr int kDefaultPoints = 600;
constexpr int kTrialsAtATime = 2000;  // looked at in one read of the engine
constexpr int64_t kMaxLogBytes = 256 << 10;
constexpr size_t kLogFrame = 64 << 10;

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

HttpResponse Json(std::string body) {
  return {.status = 200, .body = std::move(body)};
}

HttpResponse Failure(const absl::Status& status) {
  return {.status = HttpStatusOf(status), .body = ErrorJson(status)};
}

// A whole number in [minimum, maximum] from the query; `otherwise` if it is not given.
absl::StatusOr<int64_t> Number(const HttpRequest& request, const std::string& name, int64_t otherwise, int64_t minimum,
                               int64_t maximum) {
  const std::string& text = request.Query(name);
  if (text.empty()) return otherwise;
  int64_t value = 0;
  if (!absl::SimpleAtoi(text, &value) || value < minimum || value > maximum) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": \"", text, "\" is not a whole number in [", minimum, ", ", maximum, "]"));
  }
  return value;
}

class View final : public WebView {
 public:
  View(const WebViewOptions& options, const WebViewParts& parts) : options_(options), parts_(parts) {}
  ~View() override { Stop(); }

  absl::Status Open();
  int port() const override { return server_->port(); }
  void Stop() override;

 private:
  using RequestId = HttpServer::RequestId;
  // A document that all pages ask for: made at most once a second, asked for once however many want it.
  struct SharedRead {
    std::optional<absl::Duration> made_at;
    bool is_asked = false;
    std::vector<std::function<void()>> waiting;
  };

  void Run();
  void Handle(RequestId id, const HttpRequest& request);
  bool IsForUs(const HttpRequest& request) const;
  HttpResponse File(const PageFile& file, const HttpRequest& request) const;
  absl::Status HandleApi(RequestId id, const HttpRequest& request, const std::vector<std::string>& path);
  absl::Status HandleJob(RequestId id, const HttpRequest& request, const std::string& uid, const std::string& what);
  absl::Status Logs(RequestId id, const HttpRequest& request, const std::string& uid);
  absl::Status Events(RequestId id, const HttpRequest& request);
  HttpResponse LogResponse(const LogKey& key, int64_t offset, int64_t limit) const;

  // `collect` on the engine's thread, `respond` with what it gave on ours.
  template <typename Collect, typename Respond>
  void Read(RequestId id, Collect collect, Respond respond) {
    parts_.engine->Read([this, id, collect = std::move(collect), respond = std::move(respond)](
                            const Core& core, Store& store, Now now) mutable {
      auto got = std::make_shared<decltype(collect(core, store, now))>(collect(core, store, now));  // to our thread
      loop_.Post([this, id, got, respond = std::move(respond)] {
        server_->Reply(id, got->ok() ? respond(**got) : Failure(got->status()));
      });
    });
  }
  // `collect` is run on the engine's thread and may keep what it found; then `use` runs on ours.
  void ReadShared(SharedRead* shared, std::function<void(const Core&, Now)> collect, std::function<void()> use);
  void WithWorkers(std::function<void()> use);

  const WebViewOptions options_;
  const WebViewParts parts_;
  EventLoop loop_;
  std::unique_ptr<TlsAcceptor> tls_;
  std::unique_ptr<HttpServer> server_;
  std::unique_ptr<LiveFeed> feed_;
  absl::Duration now_ = absl::ZeroDuration();
  // Written by a read on the engine's thread, used on ours when that read has posted; never both at a time.
  SharedRead cluster_read_;
  v1::ListWorkersResponse workers_;
  OverviewView overview_;
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
      LiveFeedOptions(), parts_.hub, &loop_,
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
    HttpResponse refusal = Failure(absl::PermissionDeniedError("plaintext is served under loopback names only"));
    refusal.status = 403;
    server_->Reply(id, refusal);
    return;
  }
  if (absl::StartsWith(request.path, "/api/")) {
    const absl::Status status = HandleApi(id, request, absl::StrSplit(request.path.substr(5), '/'));
    if (!status.ok()) server_->Reply(id, Failure(status));
    return;
  }
  const std::string path = request.path == "/" ? "/index.html" : request.path;
  for (const PageFile& file : PageFiles()) {
    if (file.path == absl::string_view(path)) {
      server_->Reply(id, File(file, request));
      return;
    }
  }
  server_->Reply(id, Failure(absl::NotFoundError("there is no such page")));
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

absl::Status View::HandleApi(RequestId id, const HttpRequest& request, const std::vector<std::string>& path) {
  const absl::Status unknown = absl::NotFoundError("there is no such document");
  if (path[0] == "jobs" && path.size() >= 2 && !path[1].empty()) {
    if (path.size() > 3) return unknown;
    return HandleJob(id, request, path[1], path.size() == 3 ? path[2] : "");
  }
  if (path.size() != 1) return unknown;
  if (path[0] == "events") return Events(id, request);
  if (path[0] == "overview") {
    WithWorkers([this, id] { server_->Reply(id, Json(OverviewJson(overview_, parts_.info))); });
    return absl::OkStatus();
  }
  if (path[0] == "workers") {
    TY_ASSIGN_OR_RETURN(const int64_t offset, Number(request, "offset", 0, 0, 1'000'000));
    TY_ASSIGN_OR_RETURN(const int64_t limit, Number(request, "limit", 100, 1, kMaxWorkers));
    WithWorkers([this, id, offset, limit] {
      server_->Reply(
          id, Json(WorkersJson(overview_.revision, workers_, static_cast<size_t>(offset), static_cast<size_t>(limit))));
    });
    return absl::OkStatus();
  }
  if (path[0] == "queue") {
    TY_ASSIGN_OR_RETURN(const int64_t limit, Number(request, "limit", 100, 1, kMaxJobs));
    Read(
        id,
        [limit](const Core& core, Store&, Now now) {
          return absl::StatusOr<QueueView>(CollectQueue(core, static_cast<size_t>(limit), now));
        },
        [](const QueueView& queue) { return Json(QueueJson(queue)); });
    return absl::OkStatus();
  }
  if (path[0] == "jobs") {
    v1::ListRequest list;
    TY_ASSIGN_OR_RETURN(const int64_t size, Number(request, "page_size", 100, 1, kMaxJobs));
    list.set_page_size(static_cast<int32_t>(size));
    list.set_namespace_(request.Query("namespace"));
    list.set_filter(request.Query("filter"));
    list.set_page_token(request.Query("page_token"));
    list.set_include_trials(request.Query("include_trials") == "1");
    Read(
        id, [list](const Core& core, Store&, Now now) { return ListJobs(core, list, now); },
        [](v1::ListResponse& response) {
          for (v1::Job& job : *response.mutable_jobs()) TrimForRow(&job);
          return Json(ListJson(response));
        });
    return absl::OkStatus();
  }
  return unknown;
}

// ---- one job ----

absl::Status View::HandleJob(RequestId id, const HttpRequest& request, const std::string& uid,
                             const std::string& what) {
  const auto no_job = [uid] {
    return absl::NotFoundError(absl::StrCat("there is no job ", uid, "; it may have been deleted"));
  };
  if (what.empty()) {
    Read(
        id,
        [uid, no_job](const Core& core, Store&, Now now) -> absl::StatusOr<std::pair<uint64_t, v1::Job>> {
          if (core.Record(uid) == nullptr) return no_job();
          return std::make_pair(core.revision(), core.View(uid, now));
        },
        [](std::pair<uint64_t, v1::Job>& page) {
          TrimForPage(&page.second);
          return Json(JobPageJson(page.first, page.second));
        });
    return absl::OkStatus();
  }
  if (what == "metrics") {
    TY_ASSIGN_OR_RETURN(const int64_t after, Number(request, "after_step", -1, -1, INT64_MAX));
    TY_ASSIGN_OR_RETURN(const int64_t points, Number(request, "max_points", kDefaultPoints, 1, kMaxPoints));
    const std::vector<std::string> names = absl::StrSplit(request.Query("names"), ',', absl::SkipEmpty());
    Read(
        id,
        [uid, no_job, after, points, names](const Core& core, Store& store,
                                            Now) -> absl::StatusOr<std::vector<v1::MetricPoint>> {
          if (core.Record(uid) == nullptr) return no_job();
          return store.ReadMetrics(
              {.uid = uid, .names = names, .after_step = after, .max_points = static_cast<int>(points)});
        },
        [names](const std::vector<v1::MetricPoint>& got) { return Json(MetricsJson(got, names)); });
    return absl::OkStatus();
  }
  if (what == "generations") {
    TY_ASSIGN_OR_RETURN(const int64_t from, Number(request, "from", 0, 0, INT64_MAX));
    Read(
        id,
        [uid, no_job, from](const Core& core, Store&, Now now) -> absl::StatusOr<GenerationsView> {
          if (core.Record(uid) == nullptr) return no_job();
          return CollectGenerations(core, core.View(uid, now), from, kTrialsAtATime);
        },
        [](const GenerationsView& view) { return Json(GenerationsJson(view)); });
    return absl::OkStatus();
  }
  if (what == "trials") {
    TY_ASSIGN_OR_RETURN(const int64_t generation, Number(request, "generation", 1, 0, INT64_MAX));
    TY_ASSIGN_OR_RETURN(const int64_t offset, Number(request, "offset", 0, 0, 1'000'000));
    TY_ASSIGN_OR_RETURN(const int64_t limit, Number(request, "limit", 100, 1, kMaxJobs));
    using Trials = std::pair<size_t, std::vector<v1::Job>>;
    Read(
        id,
        [=](const Core& core, Store&, Now now) -> absl::StatusOr<Trials> {
          if (core.Record(uid) == nullptr) return no_job();
          Trials trials;
          trials.second = CollectTrials(core, uid, generation, static_cast<size_t>(offset), static_cast<size_t>(limit),
                                        now, &trials.first);
          return trials;
        },
        [](const Trials& trials) { return Json(TrialsJson(trials.first, trials.second)); });
    return absl::OkStatus();
  }
  if (what == "logs") return Logs(id, request, uid);
  return absl::NotFoundError("there is no such document");
}

absl::Status View::Logs(RequestId id, const HttpRequest& request, const std::string& uid) {
  TY_ASSIGN_OR_RETURN(const int64_t attempt, Number(request, "attempt", 1, 1, INT32_MAX));
  TY_ASSIGN_OR_RETURN(const int64_t rank, Number(request, "rank", 0, 0, INT32_MAX));
  TY_ASSIGN_OR_RETURN(const int64_t offset, Number(request, "offset", -(64 << 10), INT64_MIN / 2, INT64_MAX / 2));
  TY_ASSIGN_OR_RETURN(const int64_t limit, Number(request, "limit", kMaxLogBytes, 1, kMaxLogBytes));
  const std::string stream = request.Query("stream").empty() ? "stderr" : request.Query("stream");
  if (stream != "stdout" && stream != "stderr") {
    return absl::InvalidArgumentError("stream: must be stdout or stderr");
  }
  const LogKey key{uid, static_cast<int>(attempt), static_cast<int>(rank), stream};
  Read(
      id,
      [key](const Core& core, Store&, Now) -> absl::StatusOr<bool> {
        // Also keeps what is no uid away from paths.
        const JobRecord* record = core.Record(key.job_uid);
        if (record == nullptr) return absl::NotFoundError(absl::StrCat("there is no job ", key.job_uid));
        for (const v1::Attempt& attempt : record->job().attempts()) {
          if (attempt.number() == key.attempt && key.rank < attempt.places_size()) return true;
        }
        return absl::NotFoundError(
            absl::StrCat("job ", record->job().name(), " has no rank ", key.rank, " in attempt ", key.attempt));
      },
      [this, key, offset, limit](bool) { return LogResponse(key, offset, limit); });
  return absl::OkStatus();
}

HttpResponse View::LogResponse(const LogKey& key, int64_t offset, int64_t limit) const {
  LogTail tail;
  tail.has_ended = parts_.logs->HasEnded(key);  // before the size, so that nothing is missed
  tail.size = parts_.logs->Size(key);
  tail.next_offset = offset < 0 ? std::max<int64_t>(0, tail.size + offset) : offset;
  while (limit > 0) {
    const auto piece = parts_.logs->Read(key, tail.next_offset, std::min(kLogFrame, static_cast<size_t>(limit)));
    if (!piece.ok()) return Failure(piece.status());
    if (piece->data.empty() && piece->gap_bytes == 0) break;
    v1::LogFrame& frame = tail.frames.emplace_back();
    frame.set_attempt(key.attempt);
    frame.set_rank(key.rank);
    frame.set_stream(key.stream);
    frame.set_offset(piece->offset);
    frame.set_gap_bytes(piece->gap_bytes);
    frame.set_data(piece->data);
    tail.next_offset = piece->offset + static_cast<int64_t>(piece->data.size());
    limit -= std::max<int64_t>(1, static_cast<int64_t>(piece->data.size()));
  }
  return Json(LogJson(tail));
}

// ---- events, shared reads ----

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

void View::ReadShared(SharedRead* shared, std::function<void(const Core&, Now)> collect, std::function<void()> use) {
  if (shared->made_at && now_ - *shared->made_at < kSharedFor && !shared->is_asked) return use();
  shared->waiting.push_back(std::move(use));
  if (std::exchange(shared->is_asked, true)) return;
  parts_.engine->Read([this, shared, collect = std::move(collect)](const Core& core, Store&, Now now) {
    collect(core, now);
    loop_.Post([this, shared] {
      shared->is_asked = false;
      shared->made_at = now_;
      for (const auto& waiting : std::exchange(shared->waiting, {})) waiting();
    });
  });
}

void View::WithWorkers(std::function<void()> use) {
  ReadShared(
      &cluster_read_,
      [this](const Core& core, Now now) {
        workers_ = core.Workers();
        overview_ = CollectOverview(core, workers_, now);
      },
      std::move(use));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WebView>> WebView::Start(const WebViewOptions& options, const WebViewParts& parts) {
  auto view = std::make_unique<View>(options, parts);
  TY_RETURN_IF_ERROR(view->Open());
  return std::unique_ptr<WebView>(std::move(view));
}

}  // namespace trainyard::coordinator
