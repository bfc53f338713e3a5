// Figure (d): acknowledged (durable) submits a second with 64 clients, p50 and p99; and the latency of one client.
// A real coordinator with SQLite in synchronous=FULL; each client is a thread with a channel of its own.
#include <algorithm>
#include <cstdio>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/ids.h"
#include "grpcpp/grpcpp.h"
#include "proto/v1/coordinator.grpc.pb.h"
#include "tests/support/cluster.h"

namespace trainyard::testing_support {
namespace {

v1::SubmitRequest Request() {
  v1::SubmitRequest request;
  request.set_request_id(NewUuid());
  v1::JobSpec& spec = *request.mutable_spec();
  spec.set_name("job-" + request.request_id());
  spec.mutable_world()->set_min(1);
  spec.mutable_pretrain();
  spec.mutable_model()->set_preset("llama-1m");
  spec.mutable_data()->set_path("data");
  spec.mutable_training()->set_steps(10);
  return request;
}

// Seconds of each acknowledged submit of one client.
std::vector<double> SubmitFor(const std::string& address, absl::Duration duration) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto jobs =
      v1::Jobs::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  std::vector<double> latencies;
  const absl::Duration end = RealClock()->Monotonic() + duration;
  while (RealClock()->Monotonic() < end) {
    grpc::ClientContext context;
    v1::SubmitResponse response;
    const absl::Duration begin = RealClock()->Monotonic();
    const grpc::Status status = jobs->Submit(&context, Request(), &response);
    if (!status.ok()) {
      std::fprintf(stderr, "submit failed: %s\n", status.error_message().c_str());
      return latencies;
    }
    latencies.push_back(absl::ToDoubleSeconds(RealClock()->Monotonic() - begin));
  }
  return latencies;
}

double Percentile(std::vector<double>& values, double p) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(p * static_cast<double>(values.size())))];
}

void Measure(const std::string& address, int clients, absl::Duration duration) {
  std::vector<std::vector<double>> each(static_cast<size_t>(clients));
  std::vector<std::thread> threads;
  for (int i = 0; i < clients; ++i) {
    threads.emplace_back([&, i] { each[static_cast<size_t>(i)] = SubmitFor(address, duration); });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<double> all;
  for (const auto& latencies : each) all.insert(all.end(), latencies.begin(), latencies.end());
  const double rate = static_cast<double>(all.size()) / absl::ToDoubleSeconds(duration);
  std::printf("%2d clients: %6.0f acknowledged submits/s, p50 %6.2f ms, p99 %6.2f ms\n", clients, rate,
              1e3 * Percentile(all, 0.50), 1e3 * Percentile(all, 0.99));
}

}  // namespace
}  // namespace trainyard::testing_support

int main() {
  trainyard::testing_support::Cluster cluster({.workers = 0});
  trainyard::testing_support::Measure(cluster.coordinator_address(), 1, absl::Seconds(5));
  trainyard::testing_support::Measure(cluster.coordinator_address(), 64, absl::Seconds(10));
}
