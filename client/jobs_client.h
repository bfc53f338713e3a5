// The Jobs service as plain calls: deadlines, retries and cancellation are inside, no gRPC type comes out.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/interrupt.h"
#include "proto/rpc/credentials.h"
#include "proto/v1/coordinator.pb.h"

namespace trainyard::client {

// Safe from any thread.
class JobsClient {
 public:
  struct Options {
    std::string address;
    Security security;
    absl::Duration timeout = absl::Seconds(10);  // of each unary call
    const Interrupt* interrupt = nullptr;        // ends streams with Cancelled; outlives the client
  };

  // Connects with the first call.
  static absl::StatusOr<std::unique_ptr<JobsClient>> Create(const Options& options);
  ~JobsClient();

  absl::StatusOr<v1::SubmitResponse> Submit(const v1::SubmitRequest& request);
  absl::StatusOr<v1::SubmitBatchResponse> SubmitBatch(const v1::SubmitBatchRequest& request);
  absl::StatusOr<v1::Job> Get(const v1::GetRequest& request);
  absl::StatusOr<v1::ListResponse> List(const v1::ListRequest& request);
  absl::StatusOr<v1::Job> Cancel(const v1::JobActionRequest& request);
  absl::StatusOr<v1::Job> Suspend(const v1::JobActionRequest& request);
  absl::StatusOr<v1::Job> Resume(const v1::JobActionRequest& request);
  absl::StatusOr<v1::MetricsResponse> Metrics(const v1::MetricsRequest& request);
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers();
  absl::StatusOr<v1::ForgetWorkerResponse> ForgetWorker(const v1::ForgetWorkerRequest& request);
  absl::StatusOr<v1::ServerInfo> GetServerInfo();

  // Calls `on_item` with each item until it returns false (then OK), the server ends the stream (its status), the
  // interrupt comes (Cancelled) or the deadline passes (DeadlineExceeded).
  absl::Status Watch(const v1::WatchRequest& request, absl::Time deadline,
                     const std::function<bool(const v1::WatchResponse&)>& on_item);
  absl::Status Logs(const v1::LogsRequest& request, const std::function<bool(const v1::LogFrame&)>& on_item);

 private:
  struct Connection;
  explicit JobsClient(std::unique_ptr<Connection> connection);

  const std::unique_ptr<Connection> connection_;
};

}  // namespace trainyard::client
