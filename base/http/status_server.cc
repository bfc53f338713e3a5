#include "base/http/status_server.h"

#include <CivetServer.h>
#include <prometheus/collectable.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace trainyard {
namespace {

void Answer(mg_connection* connection, int code, const char* reason, const char* type, const std::string& body) {
  mg_printf(connection, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n\r\n",
            code, reason, type, body.size());
  mg_write(connection, body.data(), body.size());
}

class MetricsHandler final : public CivetHandler {
 public:
  explicit MetricsHandler(std::shared_ptr<prometheus::Collectable> metrics) : metrics_(std::move(metrics)) {}
  bool handleGet(CivetServer*, mg_connection* connection) override {
    Answer(connection, 200, "OK", "text/plain; version=0.0.4; charset=utf-8",
           prometheus::TextSerializer().Serialize(metrics_->Collect()));
    return true;
  }

 private:
  const std::shared_ptr<prometheus::Collectable> metrics_;
};

class CheckHandler final : public CivetHandler {
 public:
  explicit CheckHandler(StatusServer::Check check) : check_(std::move(check)) {}
  bool handleGet(CivetServer*, mg_connection* connection) override {
    const absl::Status status = check_();
    if (status.ok()) {
      Answer(connection, 200, "OK", "text/plain; charset=utf-8", "ok\n");
    } else {
      Answer(connection, 503, "Service Unavailable", "text/plain; charset=utf-8", absl::StrCat(status.message(), "\n"));
    }
    return true;
  }

 private:
  const StatusServer::Check check_;
};

class CivetStatusServer final : public StatusServer {
 public:
  explicit CivetStatusServer(Options options)
      : metrics_(std::move(options.metrics)),
        live_(std::move(options.is_live)),
        ready_(std::move(options.is_ready)),
        server_(std::vector<std::string>{"listening_ports", options.listen, "num_threads", "4"}) {
    server_.addHandler("/metrics", metrics_);
    server_.addHandler("/livez", live_);
    server_.addHandler("/readyz", ready_);
  }

  int port() const override { return port_; }
  // 0 if nothing was bound.
  int FindPort() {
    const std::vector<int> ports = server_.getListeningPorts();
    return port_ = ports.empty() ? 0 : ports.front();
  }

 private:
  MetricsHandler metrics_;
  CheckHandler live_, ready_;
  CivetServer server_;  // last: its threads end before the handlers go
  int port_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StatusServer>> StatusServer::Start(Options options) {
  const std::string listen = options.listen;
  try {
    auto server = std::make_unique<CivetStatusServer>(std::move(options));
    if (server->FindPort() == 0) return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", listen));
    return std::unique_ptr<StatusServer>(std::move(server));
  } catch (const std::exception& error) {  // of civetweb: it cannot bind
    return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", listen, ": ", error.what()));
  }
}

}  // namespace trainyard
