#include "proto/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/support/server_interceptor.h>

#include <atomic>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/status_macros.h"

namespace trainyard {
namespace {

std::string WithPort(const std::string& address, int port) {
  if (absl::StartsWith(address, "unix")) return address;
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

// One call, as long as the library remembers it.
class ObservedCall final : public grpc::experimental::Interceptor {
 public:
  ObservedCall(RpcObserver* observer, const grpc::experimental::ServerRpcInfo& info)
      : observer_(observer),
        method_(info.method() == nullptr ? "" : info.method()),
        is_stream_(info.type() != grpc::experimental::ServerRpcInfo::Type::UNARY),
        begin_(RealClock()->Monotonic()) {
    observer_->OnStarted(method_, is_stream_);
  }
  ~ObservedCall() override { End(absl::StatusCode::kCancelled); }

  void Intercept(grpc::experimental::InterceptorBatchMethods* batch) override {
    if (batch->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::PRE_SEND_STATUS)) {
      End(static_cast<absl::StatusCode>(batch->GetSendStatus().error_code()));
    }
    batch->Proceed();
  }

 private:
  // The first counts.
  void End(absl::StatusCode code) {
    if (has_ended_.exchange(true)) return;
    observer_->OnHandled(method_, is_stream_, code, RealClock()->Monotonic() - begin_);
  }

  RpcObserver* const observer_;
  const std::string method_;  // the library's own text may be gone before this object
  const bool is_stream_;
  const absl::Duration begin_;
  std::atomic<bool> has_ended_{false};
};

class ObservedCalls final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit ObservedCalls(RpcObserver* observer) : observer_(observer) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(grpc::experimental::ServerRpcInfo* info) override {
    return new ObservedCall(observer_, *info);  // the library deletes it
  }

 private:
  RpcObserver* const observer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const RpcServerOptions& options,
                                                            const std::vector<grpc::Service*>& services) {
  TY_ASSIGN_OR_RETURN(const auto credentials, MakeServerCredentials(options.address, options.security));
  // Both are process-wide switches that builders read; setting them again changes nothing.
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.address, credentials, &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  if (options.observer != nullptr) {
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
    interceptors.push_back(std::make_unique<ObservedCalls>(options.observer));
    builder.experimental().SetInterceptorCreators(std::move(interceptors));
  }
  builder.SetMaxReceiveMessageSize(options.max_receive_bytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // Two servers on one port would share its connections at random.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || (port == 0 && !absl::StartsWith(options.address, "unix"))) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", options.address, ": the address is malformed, in use, or not of this host"));
  }
  return std::unique_ptr<RpcServer>(new RpcServer(std::move(server), WithPort(options.address, port)));
}

RpcServer::RpcServer(std::unique_ptr<grpc::Server> server, std::string address)
    : server_(std::move(server)), address_(std::move(address)) {}

RpcServer::~RpcServer() {
  Shutdown();
}

void RpcServer::SetServing(bool serving) {
  if (auto* health = server_->GetHealthCheckService()) health->SetServingStatus(serving);
}

void RpcServer::Shutdown(absl::Duration grace) {
  SetServing(false);
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_->Wait();
}

}  // namespace trainyard
