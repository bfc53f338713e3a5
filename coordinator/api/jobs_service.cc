#include "coordinator/api/jobs_service.h"

#include <grpcpp/grpcpp.h>

#include <memory>
#include <utility>

#include "base/ids.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/api/list_jobs.h"
#include "proto/rpc/status.h"

namespace trainyard::coordinator {
namespace {

// More would not fit one message (CP-54).
constexpr int kMaxMetricPoints = 20'000;

}  // namespace

grpc::ServerUnaryReactor* JobsService::Submit(grpc::CallbackServerContext* context, const v1::SubmitRequest* request,
                                              v1::SubmitResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto result = std::make_shared<SubmitResult>();  // from the change to its answer
  parts_.engine->Change(
      [request, result, uid = NewUuid()](Core& core, Now now, Effects* effects) -> absl::Status {
        TY_ASSIGN_OR_RETURN(*result, core.Submit(*request, uid, now, effects));
        return absl::OkStatus();
      },
      [reactor, response, result, metrics = parts_.metrics, begin = parts_.engine->now().mono](
          const absl::Status& status, const Core* core, Now now) {
        metrics->Submit(now.mono - begin);
        if (status.ok()) {
          response->set_deduplicated(result->deduplicated);
          *response->mutable_job() = result->uid.empty() ? result->validated : core->View(result->uid, now);
        }
        reactor->Finish(ToGrpcStatus(status));
      });
  return reactor;
}

grpc::ServerUnaryReactor* JobsService::SubmitBatch(grpc::CallbackServerContext* context,
                                                   const v1::SubmitBatchRequest* request,
                                                   v1::SubmitBatchResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto result = std::make_shared<SubmitBatchResult>();  // from the change to its answer
  std::vector<std::string> uids;
  for (int i = 0; i < request->specs_size(); ++i) uids.push_back(NewUuid());
  parts_.engine->Change(
      [request, result, uids = std::move(uids)](Core& core, Now now, Effects* effects) -> absl::Status {
        TY_ASSIGN_OR_RETURN(*result, core.SubmitBatch(*request, uids, now, effects));
        return absl::OkStatus();
      },
      [reactor, response, result, metrics = parts_.metrics, begin = parts_.engine->now().mono](
          const absl::Status& status, const Core* core, Now now) {
        metrics->Submit(now.mono - begin);
        if (status.ok()) {
          response->set_deduplicated(result->deduplicated);
          for (const std::string& uid : result->uids) *response->add_jobs() = core->View(uid, now);
          for (const v1::Job& job : result->validated) *response->add_jobs() = job;
        }
        reactor->Finish(ToGrpcStatus(status));
      });
  return reactor;
}

grpc::ServerUnaryReactor* JobsService::Get(grpc::CallbackServerContext* context, const v1::GetRequest* request,
                                           v1::Job* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.engine->Read([reactor, request, response](const Core& core, Store& store, Now now) {
    const absl::StatusOr<std::string> uid = core.Find(request->namespace_(), request->job());
    if (uid.ok()) *response = core.View(*uid, now);
    reactor->Finish(ToGrpcStatus(uid.status()));
  });
  return reactor;
}

grpc::ServerUnaryReactor* JobsService::List(grpc::CallbackServerContext* context, const v1::ListRequest* request,
                                            v1::ListResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.engine->Read([reactor, request, response](const Core& core, Store& store, Now now) {
    absl::StatusOr<v1::ListResponse> listed = ListJobs(core, *request, now);
    if (listed.ok()) *response = *std::move(listed);
    reactor->Finish(ToGrpcStatus(listed.status()));
  });
  return reactor;
}

grpc::ServerUnaryReactor* JobsService::Act(grpc::CallbackServerContext* context, CoreAction action,
                                           const v1::JobActionRequest* request, v1::Job* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto uid = std::make_shared<std::string>();  // from the change to its answer
  parts_.engine->Change(
      [request, action, uid](Core& core, Now now, Effects* effects) -> absl::Status {
        TY_ASSIGN_OR_RETURN(*uid, (core.*action)(*request, now, effects));
        return absl::OkStatus();
      },
      [reactor, response, uid](const absl::Status& status, const Core* core, Now now) {
        if (status.ok()) *response = core->View(*uid, now);
        reactor->Finish(ToGrpcStatus(status));
      });
  return reactor;
}

grpc::ServerUnaryReactor* JobsService::Cancel(grpc::CallbackServerContext* context, const v1::JobActionRequest* request,
                                              v1::Job* response) {
  return Act(context, &Core::Cancel, request, response);
}

grpc::ServerUnaryReactor* JobsService::Suspend(grpc::CallbackServerContext* context,
                                               const v1::JobActionRequest* request, v1::Job* response) {
  return Act(context, &Core::Suspend, request, response);
}

grpc::ServerUnaryReactor* JobsService::Resume(grpc::CallbackServerContext* context, const v1::JobActionRequest* request,
                                              v1::Job* response) {
  return Act(context, &Core::Resume, request, response);
}

grpc::ServerUnaryReactor* JobsService::Metrics(grpc::CallbackServerContext* context, const v1::MetricsRequest* request,
                                               v1::MetricsResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.engine->Read([reactor, request, response](const Core& core, Store& store, Now now) {
    const absl::Status status = [&]() -> absl::Status {
      TY_ASSIGN_OR_RETURN(const std::string uid, core.Find(request->namespace_(), request->job()));
      TY_ASSIGN_OR_RETURN(const StoredPoints stored,
                          store.ReadMetrics(uid, request->after_step() > 0 ? request->after_step() : -1));
      TY_ASSIGN_OR_RETURN(
          std::vector<v1::MetricPoint> points,
          ChoosePoints(stored, {.names = {request->names().begin(), request->names().end()},
                                .max_points = request->max_points() > 0 ? request->max_points() : kMaxMetricPoints}));
      for (v1::MetricPoint& point : points) *response->add_points() = std::move(point);
      return absl::OkStatus();
    }();
    reactor->Finish(ToGrpcStatus(status));
  });
  return reactor;
}

grpc::ServerUnaryReactor* JobsService::ListWorkers(grpc::CallbackServerContext* context,
                                                   const v1::ListWorkersRequest* request,
                                                   v1::ListWorkersResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.engine->Read([reactor, response](const Core& core, Store& store, Now now) {
    *response = core.Workers();
    reactor->Finish(grpc::Status::OK);
  });
  return reactor;
}

grpc::ServerUnaryReactor* JobsService::ForgetWorker(grpc::CallbackServerContext* context,
                                                    const v1::ForgetWorkerRequest* request,
                                                    v1::ForgetWorkerResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  parts_.engine->Change([request](Core& core, Now now,
                                  Effects* effects) { return core.ForgetWorker(request->worker_id(), now, effects); },
                        [reactor, request](const absl::Status& status, const Core* core, Now now) {
                          if (status.ok())
                            LogInfo("worker ", request->worker_id(), " was taken off the list by an operator");
                          reactor->Finish(ToGrpcStatus(status));
                        });
  return reactor;
}

grpc::ServerUnaryReactor* JobsService::GetServerInfo(grpc::CallbackServerContext* context,
                                                     const v1::GetServerInfoRequest* request,
                                                     v1::ServerInfo* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  *response = parts_.info;
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace trainyard::coordinator
