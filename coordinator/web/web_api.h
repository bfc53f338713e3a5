// The documents below /api/ of the web view (web_view.h), but for the events: what is read on the engine's thread or
// from the logs, answered as JSON (documents.h).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/event_loop.h"
#include "coordinator/web/documents.h"
#include "coordinator/web/http_request.h"
#include "coordinator/web/http_server.h"
#include "coordinator/web/web_view.h"

namespace trainyard::coordinator {

// What is answered instead of a document.
HttpResponse FailureResponse(const absl::Status& status);

// For the loop's thread. Outlives the engine's reads.
class WebApi {
 public:
  using RequestId = HttpServer::RequestId;
  // The connection may be gone by then.
  using Reply = std::function<void(RequestId id, const HttpResponse& response)>;

  WebApi(const WebViewParts& parts, EventLoop* loop, Reply reply);

  // `path`: what follows "/api/", cut at slashes. OK: `reply` is called, now or later; if not, the status is what
  // remains to be told. NotFound: no such document; InvalidArgument: a value of the query.
  absl::Status Handle(RequestId id, const HttpRequest& request, const std::vector<std::string>& path);

 private:
  // A document that all pages ask for: made at most once a second, asked for once however many want it.
  struct SharedRead {
    std::optional<absl::Duration> made_at;
    bool is_asked = false;
    std::vector<std::function<void()>> waiting;
  };

  absl::Status Job(RequestId id, const HttpRequest& request, const std::string& uid, const std::string& what);
  absl::Status Logs(RequestId id, const HttpRequest& request, const std::string& uid);
  HttpResponse LogResponse(const LogKey& key, int64_t offset, int64_t limit) const;

  // `collect` on the engine's thread, `respond` with what it gave on ours.
  template <typename Collect, typename Respond>
  void Read(RequestId id, Collect collect, Respond respond) {
    parts_.engine->Read([this, id, collect = std::move(collect), respond = std::move(respond)](
                            const Core& core, Store& store, Now now) mutable {
      auto got = std::make_shared<decltype(collect(core, store, now))>(collect(core, store, now));  // to our thread
      loop_->Post([this, id, got, respond = std::move(respond)] {
        reply_(id, got->ok() ? respond(**got) : FailureResponse(got->status()));
      });
    });
  }
  // `collect` is run on the engine's thread and may keep what it found; then `use` runs on ours.
  void ReadShared(SharedRead* shared, std::function<void(const Core&, Now)> collect, std::function<void()> use);
  void WithWorkers(std::function<void()> use);

  const WebViewParts parts_;
  EventLoop* const loop_;
  const Reply reply_;
  // Written by a read on the engine's thread, used on ours when that read has posted; never both at a time.
  SharedRead cluster_read_;
  v1::ListWorkersResponse workers_;
  OverviewView overview_;
};

}  // namespace trainyard::coordinator
