// The Jobs service: unpack, ask the engine, pack. coordinator.proto states each call's codes.
#pragma once

#include <atomic>
#include <string>
#include <utility>

#include "coordinator/api/coordinator_metrics.h"
#include "coordinator/api/engine.h"
#include "coordinator/api/log_follower.h"
#include "coordinator/api/log_store.h"
#include "coordinator/api/watch_hub.h"
#include "proto/v1/coordinator.grpc.pb.h"

namespace trainyard::coordinator {

struct JobsServiceParts {
  Engine* engine = nullptr;
  WatchHub* watch_hub = nullptr;
  LogStore* logs = nullptr;
  LogFollower* follower = nullptr;
  CoordinatorMetrics* metrics = nullptr;
  v1::ServerInfo info;
};

// The parts outlive the service.
class JobsService final : public v1::Jobs::CallbackService {
 public:
  explicit JobsService(JobsServiceParts parts) : parts_(std::move(parts)) {}

  // Ends the calls that follow logs; they would outlast a graceful stop.
  void EndFollowing() { stopping_ = true; }

  grpc::ServerUnaryReactor* Submit(grpc::CallbackServerContext* context, const v1::SubmitRequest* request,
                                   v1::SubmitResponse* response) override;
  grpc::ServerUnaryReactor* SubmitBatch(grpc::CallbackServerContext* context, const v1::SubmitBatchRequest* request,
                                        v1::SubmitBatchResponse* response) override;
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context, const v1::GetRequest* request,
                                v1::Job* response) override;
  grpc::ServerUnaryReactor* List(grpc::CallbackServerContext* context, const v1::ListRequest* request,
                                 v1::ListResponse* response) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context, const v1::JobActionRequest* request,
                                   v1::Job* response) override;
  grpc::ServerUnaryReactor* Suspend(grpc::CallbackServerContext* context, const v1::JobActionRequest* request,
                                    v1::Job* response) override;
  grpc::ServerUnaryReactor* Resume(grpc::CallbackServerContext* context, const v1::JobActionRequest* request,
                                   v1::Job* response) override;
  grpc::ServerUnaryReactor* Metrics(grpc::CallbackServerContext* context, const v1::MetricsRequest* request,
                                    v1::MetricsResponse* response) override;
  grpc::ServerUnaryReactor* ListWorkers(grpc::CallbackServerContext* context, const v1::ListWorkersRequest* request,
                                        v1::ListWorkersResponse* response) override;
  grpc::ServerUnaryReactor* ForgetWorker(grpc::CallbackServerContext* context, const v1::ForgetWorkerRequest* request,
                                         v1::ForgetWorkerResponse* response) override;
  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context, const v1::GetServerInfoRequest* request,
                                          v1::ServerInfo* response) override;
  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(grpc::CallbackServerContext* context,
                                                     const v1::WatchRequest* request) override;
  grpc::ServerWriteReactor<v1::LogFrame>* Logs(grpc::CallbackServerContext* context,
                                               const v1::LogsRequest* request) override;

 private:
  using CoreAction = absl::StatusOr<std::string> (Core::*)(const v1::JobActionRequest&, Now, Effects*);
  grpc::ServerUnaryReactor* Act(grpc::CallbackServerContext* context, CoreAction action,
                                const v1::JobActionRequest* request, v1::Job* response);

  const JobsServiceParts parts_;
  std::atomic<bool> stopping_{false};
};

}  // namespace trainyard::coordinator
