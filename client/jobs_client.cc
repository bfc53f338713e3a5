#include "client/jobs_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <poll.h>
#include <sys/eventfd.h>

#include <thread>

#include "base/check.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/status.h"
#include "proto/v1/coordinator.grpc.pb.h"

namespace trainyard::client {

struct JobsClient::Connection {
  Options options;
  std::unique_ptr<v1::Jobs::Stub> stub;
};

namespace {

// Cancels a call when the interrupt comes, as long as this object lives.
class CancelOnInterrupt {
 public:
  CancelOnInterrupt(grpc::ClientContext* context, const Interrupt* interrupt) : done_(eventfd(0, EFD_CLOEXEC)) {
    TY_CHECK(done_.valid());
    if (interrupt == nullptr) return;
    thread_ = std::thread([this, context, interrupt] {
      pollfd entries[] = {{.fd = interrupt->fd(), .events = POLLIN, .revents = 0},
                          {.fd = done_.get(), .events = POLLIN, .revents = 0}};
      while (poll(entries, 2, -1) < 0) continue;  // a signal
      if (entries[0].revents != 0) context->TryCancel();
    });
  }
  ~CancelOnInterrupt() {
    const uint64_t one = 1;
    TY_CHECK_EQ(write(done_.get(), &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
    if (thread_.joinable()) thread_.join();
  }

 private:
  UniqueFd done_;
  std::thread thread_;
};

template <typename Connection, typename Request, typename Response>
absl::StatusOr<Response> Unary(Connection& connection,
                               grpc::Status (v1::Jobs::Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                               const Request& request) {
  grpc::ClientContext context;
  SetDeadline(&context, connection.options.timeout);
  CancelOnInterrupt guard(&context, connection.options.interrupt);
  Response response;
  TY_RETURN_IF_ERROR(FromGrpcStatus((connection.stub.get()->*method)(&context, request, &response)));
  return response;
}

template <typename Item>
absl::Status Drain(grpc::ClientContext& context, grpc::ClientReader<Item>& reader,
                   const std::function<bool(const Item&)>& on_item) {
  Item item;
  while (reader.Read(&item)) {
    if (on_item(item)) continue;
    context.TryCancel();
    while (reader.Read(&item)) continue;
    reader.Finish();  // Cancelled, by ourselves
    return absl::OkStatus();
  }
  return FromGrpcStatus(reader.Finish());
}

}  // namespace

absl::StatusOr<std::unique_ptr<JobsClient>> JobsClient::Create(const Options& options) {
  TY_ASSIGN_OR_RETURN(
      const auto channel,
      MakeChannel(options.address, {.security = options.security, .maximum_reconnect_backoff = absl::Seconds(2)}));
  auto connection = std::make_unique<Connection>();
  connection->options = options;
  connection->stub = v1::Jobs::NewStub(channel);
  return std::unique_ptr<JobsClient>(new JobsClient(std::move(connection)));
}

JobsClient::JobsClient(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
JobsClient::~JobsClient() = default;

absl::StatusOr<v1::SubmitResponse> JobsClient::Submit(const v1::SubmitRequest& request) {
  return Unary(*connection_, &v1::Jobs::Stub::Submit, request);
}
absl::StatusOr<v1::SubmitBatchResponse> JobsClient::SubmitBatch(const v1::SubmitBatchRequest& request) {
  return Unary(*connection_, &v1::Jobs::Stub::SubmitBatch, request);
}
absl::StatusOr<v1::Job> JobsClient::Get(const v1::GetRequest& request) {
  return Unary(*connection_, &v1::Jobs::Stub::Get, request);
}
absl::StatusOr<v1::ListResponse> JobsClient::List(const v1::ListRequest& request) {
  return Unary(*connection_, &v1::Jobs::Stub::List, request);
}
absl::StatusOr<v1::Job> JobsClient::Cancel(const v1::JobActionRequest& request) {
  return Unary(*connection_, &v1::Jobs::Stub::Cancel, request);
}
absl::StatusOr<v1::Job> JobsClient::Suspend(const v1::JobActionRequest& request) {
  return Unary(*connection_, &v1::Jobs::Stub::Suspend, request);
}
absl::StatusOr<v1::Job> JobsClient::Resume(const v1::JobActionRequest& request) {
  return Unary(*connection_, &v1::Jobs::Stub::Resume, request);
}
absl::StatusOr<v1::MetricsResponse> JobsClient::Metrics(const v1::MetricsRequest& request) {
  return Unary(*connection_, &v1::Jobs::Stub::Metrics, request);
}
absl::StatusOr<v1::ListWorkersResponse> JobsClient::ListWorkers() {
  return Unary(*connection_, &v1::Jobs::Stub::ListWorkers, v1::ListWorkersRequest());
}
absl::StatusOr<v1::ForgetWorkerResponse> JobsClient::ForgetWorker(const v1::ForgetWorkerRequest& request) {
  return Unary(*connection_, &v1::Jobs::Stub::ForgetWorker, request);
}
absl::StatusOr<v1::ServerInfo> JobsClient::GetServerInfo() {
  return Unary(*connection_, &v1::Jobs::Stub::GetServerInfo, v1::GetServerInfoRequest());
}

absl::Status JobsClient::Watch(const v1::WatchRequest& request, absl::Time deadline,
                               const std::function<bool(const v1::WatchResponse&)>& on_item) {
  grpc::ClientContext context;
  if (deadline != absl::InfiniteFuture()) context.set_deadline(absl::ToChronoTime(deadline));
  CancelOnInterrupt guard(&context, connection_->options.interrupt);
  const auto reader = connection_->stub->Watch(&context, request);
  return Drain(context, *reader, on_item);
}

absl::Status JobsClient::Logs(const v1::LogsRequest& request, const std::function<bool(const v1::LogFrame&)>& on_item) {
  grpc::ClientContext context;
  CancelOnInterrupt guard(&context, connection_->options.interrupt);
  const auto reader = connection_->stub->Logs(&context, request);
  return Drain(context, *reader, on_item);
}

}  // namespace trainyard::client
