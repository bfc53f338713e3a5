// The read-only web view of the coordinator: static files, JSON documents, live events, on one port and one thread.
//
//   /                                        the page; /app.js, /style.css ...: its files
//   /api/overview                            counts
//   /api/jobs?namespace=&filter=&page_size=&page_token=&include_trials=1
//   /api/queue?limit=                        jobs that wait, in the order in which they are tried, with reasons
//   /api/workers?offset=&limit=
//   /api/jobs/UID                            one job (a name does not do)
//   /api/jobs/UID/metrics?names=a,b&after_step=&max_points=
//   /api/jobs/UID/generations?from=          /api/jobs/UID/trials?generation=&offset=&limit=
//   /api/jobs/UID/logs?attempt=&rank=&stream=&offset=&limit=
//   /api/events?job=UID&after=REVISION       server-sent events (live_feed.h)
//
// documents.h says what they look like; errors are {"error": {"code", "message"}}. Reads go through the engine like
// those of gRPC and only copy there; JSON is made on the view's thread, and what every page asks for is shared for a
// second. Lists are cut into pages.
//
// Who may read: with TLS flags, whoever shows a certificate of the CA, as on the gRPC port. Without, plaintext on
// loopback only unless `insecure`, and then only under a loopback name, so that a page of somebody else, whose name was
// made to point here, gets nothing.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/api/engine.h"
#include "coordinator/api/log_store.h"
#include "coordinator/api/watch_hub.h"
#include "proto/rpc/credentials.h"
#include "proto/v1/coordinator.pb.h"

namespace trainyard::coordinator {

struct WebViewOptions {
  std::string listen;  // "host:port"; port 0 takes a free one
  Security security;
  absl::Duration certificate_interval = absl::Seconds(60);  // between two looks at the files
  int max_connections = 256;
  int max_streams = 64;
};

// What it shows; all outlive the view, and the engine is stopped before the view is destroyed.
struct WebViewParts {
  Engine* engine = nullptr;
  WatchHub* hub = nullptr;
  LogStore* logs = nullptr;
  v1::ServerInfo info;
};

class WebView {
 public:
  // FailedPrecondition: plaintext beyond loopback; InvalidArgument: as CheckTlsFiles; Unavailable: the address cannot
  // be bound.
  static absl::StatusOr<std::unique_ptr<WebView>> Start(const WebViewOptions& options, const WebViewParts& parts);
  virtual ~WebView() = default;

  virtual int port() const = 0;
  // Ends the streams and the thread. Idempotent; the destructor does it too.
  virtual void Stop() = 0;
};

}  // namespace trainyard::coordinator
