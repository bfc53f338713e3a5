#include "coordinator/testing/test_coordinator.h"

#include <google/protobuf/text_format.h>
#include <grpcpp/grpcpp.h>

#include <utility>

#include "base/check.h"
#include "coordinator/testing/scrape.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/status.h"

namespace trainyard::coordinator {

CoordinatorOptions OptionsForTests(const std::string& data_dir) {
  CoordinatorOptions options;
  options.listen = "127.0.0.1:0";
  options.metrics_listen = "127.0.0.1:0";
  options.web_listen = "127.0.0.1:0";
  options.data_dir = data_dir;
  options.timing.minimum_lease_ttl = absl::Milliseconds(100);
  options.timing.heartbeat_interval = absl::Milliseconds(100);
  options.timing.lease_ttl = absl::Seconds(2);
  options.timing.backoff_scale = 0.01;
  return options;
}

v1::JobSpec SpecForTests(const std::string& name, int ranks) {
  v1::JobSpec spec;
  TY_CHECK(google::protobuf::TextFormat::ParseFromString(
      R"(model { preset: "llama-1m" } data { path: "d" sequence_length: 64 } training { steps: 10 } pretrain {}
         stop_grace { seconds: 1 } retry { backoff_initial { seconds: 1 } })",
      &spec));
  spec.set_name(name);
  spec.mutable_world()->set_min(ranks);
  spec.mutable_world()->set_max(ranks);
  return spec;
}

TestCoordinator::TestCoordinator(Change change) : change_(std::move(change)) {
  Restart();
}

TestCoordinator::~TestCoordinator() = default;

void TestCoordinator::Restart() {
  jobs_ = nullptr;
  server_ = nullptr;
  CoordinatorOptions options = OptionsForTests(dir_.path());
  if (change_ != nullptr) change_(options);
  auto server = CoordinatorServer::Start(options);
  TY_CHECK_OK(server);
  server_ = *std::move(server);
  jobs_ = v1::Jobs::NewStub(*MakeChannel(server_->address(), {}));
}

absl::StatusOr<v1::SubmitResponse> TestCoordinator::Submit(const v1::JobSpec& spec, const std::string& request_id) {
  v1::SubmitRequest request;
  *request.mutable_spec() = spec;
  request.set_request_id(request_id);
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::SubmitResponse response;
  const grpc::Status status = jobs_->Submit(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response;
}

absl::Status TestCoordinator::ForgetWorker(const std::string& id) {
  v1::ForgetWorkerRequest request;
  request.set_worker_id(id);
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::ForgetWorkerResponse response;
  return FromGrpcStatus(jobs_->ForgetWorker(&context, request, &response));
}

std::unique_ptr<FakeWorker> TestCoordinator::Worker(const std::string& id, int slots, bool is_obedient) {
  return FakeWorker::Start(
      {.coordinator = server_->address(), .worker_id = id, .slots = slots, .is_obedient = is_obedient});
}

std::map<std::string, double> TestCoordinator::Scrape() const {
  return SeriesOf(HttpGet(server_->metrics_address()));
}

}  // namespace trainyard::coordinator
