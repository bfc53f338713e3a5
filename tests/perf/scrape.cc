// Size and time of a scrape of the coordinator at N jobs (1,000): bytes, series, and the time of one GET over loopback,
// p50 and p99, while nothing else happens and while submits go on. Jobs are queued in 20 queues; no worker takes them.
#include "coordinator/testing/scrape.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/testing/temp_dir.h"
#include "coordinator/api/coordinator_server.h"
#include "grpcpp/grpcpp.h"
#include "proto/v1/coordinator.grpc.pb.h"
#include "tests/support/process.h"

namespace trainyard::testing_support {
namespace {

constexpr int kScrapes = 200;

bool Submit(v1::Jobs::Stub& jobs, int number) {
  v1::SubmitRequest request;
  request.set_request_id(NewUuid());
  v1::JobSpec& spec = *request.mutable_spec();
  spec.set_name("job-" + request.request_id());
  spec.set_queue(absl::StrCat("queue-", number % 20));
  spec.mutable_world()->set_min(1);
  spec.mutable_pretrain();
  spec.mutable_model()->set_preset("llama-1m");
  spec.mutable_data()->set_path("data");
  spec.mutable_training()->set_steps(10);
  grpc::ClientContext context;
  v1::SubmitResponse response;
  const grpc::Status status = jobs.Submit(&context, request, &response);
  if (!status.ok()) std::fprintf(stderr, "submit: %s\n", status.error_message().c_str());
  return status.ok();
}

void Measure(const std::string& address, const char* when) {
  std::vector<double> seconds;
  std::string page;
  for (int i = 0; i < kScrapes; ++i) {
    const absl::Duration begin = RealClock()->Monotonic();
    page = coordinator::HttpGet(address);
    seconds.push_back(absl::ToDoubleSeconds(RealClock()->Monotonic() - begin));
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  std::sort(seconds.begin(), seconds.end());
  const auto series = coordinator::SeriesOf(page);
  std::printf("%-24s %5.0f jobs, %7zu bytes, %5zu series, p50 %6.2f ms, p99 %6.2f ms\n", when,
              coordinator::SumOf(series, "trainyard_jobs"), page.size(), series.size(), 1e3 * seconds[kScrapes / 2],
              1e3 * seconds[kScrapes * 99 / 100]);
}

}  // namespace
}  // namespace trainyard::testing_support

int main(int argc, char** argv) {
  using namespace trainyard::testing_support;
  const int count = argc > 1 ? std::atoi(argv[1]) : 1000;
  trainyard::InitLog("scrape", trainyard::LogLevel::kWarning);
  const trainyard::TempDir dir;
  trainyard::coordinator::CoordinatorOptions options;
  options.listen = "127.0.0.1:0";
  options.metrics_listen = "127.0.0.1:0";
  options.data_dir = dir.path();
  auto server = trainyard::coordinator::CoordinatorServer::Start(options);
  if (!server.ok()) {
    std::fprintf(stderr, "%s\n", server.status().ToString().c_str());
    return 1;
  }
  const std::string metrics = (*server)->metrics_address();
  const auto jobs =
      trainyard::v1::Jobs::NewStub(grpc::CreateChannel((*server)->address(), grpc::InsecureChannelCredentials()));
  Measure(metrics, "at the start");
  for (int i = 0; i < count; ++i) {
    if (!Submit(*jobs, i)) return 1;
  }
  WaitUntil(
      [&] {
        const auto series = trainyard::coordinator::SeriesOf(trainyard::coordinator::HttpGet(metrics));
        return trainyard::coordinator::SumOf(series, "trainyard_jobs") == count;
      },
      absl::Seconds(30));
  Measure(metrics, "idle");
  std::atomic<bool> done{false};
  std::thread submits([&] {
    for (int i = 0; !done && Submit(*jobs, i); ++i) continue;
  });
  Measure(metrics, "while jobs are submitted");
  done = true;
  submits.join();
}
