// Submits small jobs to a coordinator from many clients at once and prints one JSON line: acknowledged (so durable)
// submits a second and their latencies. With no --address it starts a coordinator of its own in --data_dir.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/ids.h"
#include "base/log.h"
#include "coordinator/api/coordinator_server.h"
#include "google/protobuf/text_format.h"
#include "grpcpp/grpcpp.h"
#include "proto/rpc/channel.h"
#include "proto/v1/coordinator.grpc.pb.h"

namespace trainyard::coordinator {
namespace {

struct Load {
  std::string address, data_dir;
  int clients = 64;
  double seconds = 5;
};

std::atomic<bool> complained{false};  // the first failure is shown

// Latencies of the acknowledged submits of one client, in milliseconds; -1 for each that failed.
std::vector<double> RunClient(const std::string& address, absl::Time end) {
  auto channel = MakeChannel(address, {});
  if (!channel.ok()) return {-1};
  const auto stub = v1::Jobs::NewStub(*channel);
  v1::SubmitRequest request;
  google::protobuf::TextFormat::ParseFromString(
      R"(model { preset: "llama-1m" } data { path: "d" sequence_length: 64 } training { steps: 10 } pretrain {})",
      request.mutable_spec());
  std::vector<double> latencies;
  while (absl::Now() < end) {
    request.set_request_id(NewUuid());
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::SubmitResponse response;
    const absl::Time begin = absl::Now();
    const grpc::Status status = stub->Submit(&context, request, &response);
    const bool ok = status.ok();
    if (!ok && !complained.exchange(true)) std::fprintf(stderr, "%s\n", status.error_message().c_str());
    latencies.push_back(ok ? absl::ToDoubleMilliseconds(absl::Now() - begin) : -1);
  }
  return latencies;
}

int Run(const Load& load) {
  std::unique_ptr<CoordinatorServer> own;
  std::string address = load.address;
  if (address.empty()) {
    CoordinatorOptions options;
    options.listen = "127.0.0.1:0";
    options.data_dir = load.data_dir;
    auto server = CoordinatorServer::Start(options);
    if (!server.ok()) {
      std::fprintf(stderr, "%s\n", server.status().ToString().c_str());
      return 1;
    }
    own = *std::move(server);
    address = own->address();
  }
  const absl::Time begin = absl::Now(), end = begin + absl::Seconds(load.seconds);
  std::vector<std::vector<double>> results(static_cast<size_t>(load.clients));
  std::vector<std::thread> clients;
  for (std::vector<double>& result : results) {
    clients.emplace_back([&result, &address, end] { result = RunClient(address, end); });
  }
  for (std::thread& client : clients) client.join();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  std::vector<double> latencies;
  int failed = 0;
  for (const std::vector<double>& result : results) {
    for (const double latency : result) {
      if (latency < 0) {
        ++failed;
      } else {
        latencies.push_back(latency);
      }
    }
  }
  std::sort(latencies.begin(), latencies.end());
  const auto quantile = [&](double q) {
    return latencies.empty() ? 0.0 : latencies[static_cast<size_t>(q * static_cast<double>(latencies.size() - 1))];
  };
  std::printf(
      "{\"clients\": %d, \"seconds\": %.2f, \"submits_per_second\": %.0f, \"failed\": %d, \"p50_ms\": %.2f, "
      "\"p99_ms\": %.2f}\n",
      load.clients, seconds, static_cast<double>(latencies.size()) / seconds, failed, quantile(0.5), quantile(0.99));
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace trainyard::coordinator

int main(int argc, char** argv) {
  trainyard::coordinator::Load load;
  CLI::App app("Durable submits a second.");
  app.add_option("--address", load.address, "A running coordinator; else one is started here");
  app.add_option("--data_dir", load.data_dir, "Folder for the coordinator that is started here");
  app.add_option("--clients", load.clients, "Clients at once")->capture_default_str()->check(CLI::Range(1, 1024));
  app.add_option("--seconds", load.seconds, "How long")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  trainyard::InitLog("submit_load", trainyard::LogLevel::kWarning);
  return trainyard::coordinator::Run(load);
}
