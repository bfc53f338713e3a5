// The Workers service: one reactor a session, which turns messages into inputs of the engine.
#pragma once

#include "coordinator/api/engine.h"
#include "coordinator/api/log_store.h"
#include "proto/v1/worker.grpc.pb.h"

namespace trainyard::coordinator {

// The engine and the logs outlive the service.
class WorkersService final : public v1::Workers::CallbackService {
 public:
  WorkersService(Engine* engine, LogStore* logs) : engine_(engine), logs_(logs) {}

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Session(
      grpc::CallbackServerContext* context) override;

 private:
  Engine* const engine_;
  LogStore* const logs_;
};

}  // namespace trainyard::coordinator
