// What the coordinator tells Prometheus of itself, over real gRPC and HTTP (CP-68, CP-69).
#include <grpcpp/grpcpp.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "coordinator/api/coordinator_metrics.h"
#include "coordinator/api/rpc_metrics.h"
#include "coordinator/testing/scrape.h"
#include "coordinator/testing/test_coordinator.h"
#include "gtest/gtest.h"
#include "proto/rpc/error_details.h"

namespace trainyard::coordinator {
namespace {

using Series = std::map<std::string, double>;

class CoordinatorMetricsTest : public ::testing::Test, protected TestCoordinator {
 protected:
  CoordinatorMetricsTest()
      : TestCoordinator([](CoordinatorOptions& options) {
          options.timing.lease_ttl = absl::Seconds(1);
          options.timing.failover_grace = absl::Seconds(2);
        }) {}

  // Scrapes until it holds; the last scrape.
  template <typename Condition>
  Series ScrapeUntil(const Condition& holds) {
    for (int i = 0; i < 500; ++i) {
      Series series = Scrape();
      if (holds(series)) return series;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ADD_FAILURE() << "not within 10 s";
    return Scrape();
  }

  static double Started(const Series& series, const std::string& method) {
    return SumOf(series, "trainyard_grpc_server_started_total", {absl::StrCat("method=\"", method, "\"")});
  }
  static double Handled(const Series& series, const std::string& method, const std::string& code) {
    return SumOf(series, "trainyard_grpc_server_handled_total",
                 {absl::StrCat("method=\"", method, "\""), absl::StrCat("code=\"", code, "\"")});
  }
  static double Recoveries(const Series& series, const std::string& phase) {
    return SumOf(series, "trainyard_recovery_seconds_count", {absl::StrCat("phase=\"", phase, "\"")});
  }
};

// CP-68: what is known is there at 0.
TEST_F(CoordinatorMetricsTest, KnownSeriesExistFromTheStart) {
  const Series series = Scrape();
  for (const char* name :
       {"trainyard_jobs{kind=\"study\",queue=\"default\",state=\"queued\"}",
        "trainyard_admission_attempts_total{result=\"placed\"}", "trainyard_recovery_seconds_count{phase=\"detect\"}",
        "trainyard_recovery_seconds_count{phase=\"first_step\"}", "trainyard_schedule_pass_duration_seconds_count",
        "trainyard_attempts_total{class=\"infra\",result=\"lost\"}",
        "trainyard_grpc_server_started_total{method=\"Jobs/Watch\",type=\"stream\"}",
        "trainyard_grpc_server_handled_total{code=\"ok\",method=\"Workers/Session\",type=\"stream\"}",
        "trainyard_grpc_server_handling_seconds_count{method=\"Jobs/Submit\",type=\"unary\"}"}) {
    EXPECT_TRUE(series.contains(name)) << name;
  }
  // The scheduler preempts nobody, and there are no quotas: no series that could never move.
  EXPECT_EQ(series.count("trainyard_preemptions_total"), 0u);
}

TEST_F(CoordinatorMetricsTest, CountsEveryCallByMethodAndCode) {
  ASSERT_OK(Submit(SpecForTests("one")));
  {
    v1::GetRequest request;
    request.set_job("nobody");
    grpc::ClientContext context;
    v1::Job response;
    EXPECT_EQ(jobs().Get(&context, request, &response).error_code(), grpc::StatusCode::NOT_FOUND);
  }
  Series series = ScrapeUntil([](const Series& s) { return Handled(s, "Jobs/Get", "not_found") == 1; });
  EXPECT_EQ(Handled(series, "Jobs/Get", "ok"), 0);
  EXPECT_EQ(Handled(series, "Jobs/Submit", "ok"), 1);
  EXPECT_EQ(SumOf(series, "trainyard_grpc_server_handling_seconds_count", {"method=\"Jobs/Submit\""}), 1);
  EXPECT_GT(SumOf(series, "trainyard_grpc_server_handling_seconds_sum", {"method=\"Jobs/Submit\""}), 0);

  // A stream has started when it opens, and ends once: here by its client.
  {
    grpc::ClientContext context;
    v1::WatchRequest request;
    auto stream = jobs().Watch(&context, request);
    v1::WatchResponse response;
    ASSERT_TRUE(stream->Read(&response));
    series = Scrape();
    EXPECT_EQ(Started(series, "Jobs/Watch"), 1);
    EXPECT_EQ(SumOf(series, "trainyard_grpc_server_handled_total", {"method=\"Jobs/Watch\""}), 0);
    context.TryCancel();
    while (stream->Read(&response)) continue;
    stream->Finish();
  }
  series = ScrapeUntil(
      [](const Series& s) { return SumOf(s, "trainyard_grpc_server_handled_total", {"method=\"Jobs/Watch\""}) == 1; });
  EXPECT_EQ(Started(series, "Jobs/Watch"), 1);

  // A session: both ways.
  {
    const auto worker = Worker("a");
    ASSERT_TRUE(worker->Await(IsRegistered));
    EXPECT_EQ(Started(Scrape(), "Workers/Session"), 1);
  }
  series = ScrapeUntil([](const Series& s) {
    return SumOf(s, "trainyard_grpc_server_handled_total", {"method=\"Workers/Session\""}) == 1;
  });

  // Whatever has ended had started, once.
  for (const auto& [name, value] : series) {
    if (!absl::StartsWith(name, "trainyard_grpc_server_started_total{")) continue;
    const std::string labels = name.substr(name.find("method="), name.find(",type") - name.find("method="));
    EXPECT_EQ(SumOf(series, "trainyard_grpc_server_handled_total", {labels}), value) << labels;
  }
}

// The number of series has a bound, whatever methods there are and whatever the codes.
TEST(RpcMetricsTest, MethodsAndCodesAreBounded) {
  prometheus::Registry registry;
  RpcMetrics metrics(&registry);
  for (int i = 0; i < 1000; ++i) {
    const std::string method = absl::StrCat("/some.Service", i, "/Call");
    metrics.OnStarted(method, false);
    metrics.OnHandled(method, false, static_cast<absl::StatusCode>(i % 100), absl::Milliseconds(i));
  }
  const Series series = SeriesOf(prometheus::TextSerializer().Serialize(registry.Collect()));
  EXPECT_EQ(SumOf(series, "trainyard_grpc_server_started_total"), 1000);
  EXPECT_EQ(SumOf(series, "trainyard_grpc_server_handled_total"), 1000);
  EXPECT_GT(SumOf(series, "trainyard_grpc_server_started_total", {"method=\"other\""}), 900);
  int started = 0, handled = 0;
  for (const auto& [name, value] : series) {
    started += absl::StartsWith(name, "trainyard_grpc_server_started_total{") ? 1 : 0;
    handled += absl::StartsWith(name, "trainyard_grpc_server_handled_total{") ? 1 : 0;
  }
  EXPECT_LE(started, RpcMetrics::kMaxMethods + 1);
  EXPECT_LE(handled, 18 * (RpcMetrics::kMaxMethods + 1));  // 17 codes, and those that are none
}

// One recovery, in all phases, and with the numbers that were told.
TEST(CoordinatorMetricsUnitTest, PhasesOfARecoveryAndAdmissionsAreCountedAsTold) {
  CoordinatorMetrics metrics(1);
  Effects effects;
  effects.recovery_times = {{RecoveryPhase::kDetect, absl::Seconds(15)}, {RecoveryPhase::kStop, absl::Seconds(1)}};
  effects.admissions = {.placed = 2, .not_enough_slots = 3, .fragmented = 5, .reserved = 7, .held = 11};
  metrics.Count(effects);
  metrics.SchedulePass(absl::Milliseconds(3));
  const Series series = SeriesOf(prometheus::TextSerializer().Serialize(metrics.registry()->Collect()));
  EXPECT_EQ(series.at("trainyard_recovery_seconds_sum{phase=\"detect\"}"), 15);
  EXPECT_EQ(series.at("trainyard_recovery_seconds_count{phase=\"stop\"}"), 1);
  EXPECT_EQ(series.at("trainyard_recovery_seconds_count{phase=\"place\"}"), 0);
  EXPECT_EQ(series.at("trainyard_admission_attempts_total{result=\"placed\"}"), 2);
  EXPECT_EQ(series.at("trainyard_admission_attempts_total{result=\"not_enough_slots\"}"), 3);
  EXPECT_EQ(series.at("trainyard_admission_attempts_total{result=\"fragmented\"}"), 5);
  EXPECT_EQ(series.at("trainyard_admission_attempts_total{result=\"reserved\"}"), 7);
  EXPECT_EQ(series.at("trainyard_admission_attempts_total{result=\"held\"}"), 11);
  EXPECT_EQ(series.at("trainyard_schedule_pass_duration_seconds_count"), 1);
}

// Through the whole coordinator, with a restart in the middle: each phase once, and no series for the job.
TEST_F(CoordinatorMetricsTest, ARecoveryIsCountedOncePhaseByPhase) {
  auto a = Worker("a");
  ASSERT_TRUE(a->Await(IsRegistered));
  ASSERT_OK(Submit(SpecForTests("job")));
  auto assign = a->Await(IsAssign);
  ASSERT_TRUE(assign && a->Await(IsStart));
  EXPECT_FALSE(assign->assign().follows_failure());
  a->Fail(assign->assign(), 75);
  assign = a->Await(IsAssign);
  ASSERT_TRUE(assign && a->Await(IsStart));
  EXPECT_TRUE(assign->assign().follows_failure());
  Series series = ScrapeUntil([](const Series& s) { return Recoveries(s, "start") == 1; });
  for (const char* phase : {"detect", "stop", "place"}) EXPECT_EQ(Recoveries(series, phase), 1) << phase;
  EXPECT_EQ(Recoveries(series, "first_step"), 0);

  // The coordinator starts again before the first step; what it had counted it does not count again.
  v1::TaskReport task;
  *task.mutable_ref() = assign->assign().ref();
  task.set_state(v1::TASK_STATE_RUNNING);
  v1::RankStatus& rank = *task.add_ranks();
  rank.set_state(v1::TASK_STATE_RUNNING);
  Restart();
  a = FakeWorker::Start({.coordinator = server().address(), .worker_id = "a"}, {task});
  ASSERT_TRUE(a->Await(IsRegistered));
  for (int step = 1; step <= 3; ++step) {
    v1::WorkerMessage message;
    *message.mutable_progress()->mutable_ref() = assign->assign().ref();
    message.mutable_progress()->mutable_progress()->set_step(step);
    a->Send(message);
    series = ScrapeUntil([](const Series& s) { return Recoveries(s, "first_step") >= 1; });
  }
  EXPECT_EQ(Recoveries(series, "first_step"), 1);
  for (const char* phase : {"detect", "stop", "place", "start"}) EXPECT_EQ(Recoveries(series, phase), 0) << phase;
  EXPECT_GE(SumOf(series, "trainyard_schedule_pass_duration_seconds_count"), 1);
}

TEST_F(CoordinatorMetricsTest, AWorkerIsForgottenOnlyIfItIsLost) {
  auto a = Worker("a");
  ASSERT_TRUE(a->Await(IsRegistered));
  absl::Status status = ForgetWorker("a");
  EXPECT_EQ(GetErrorReason(status), "WORKER_NOT_LOST");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ForgetWorker("b").code(), absl::StatusCode::kNotFound);
  a = nullptr;
  ScrapeUntil([](const Series& s) { return SumOf(s, "trainyard_workers", {"state=\"lost\""}) == 1; });
  ASSERT_OK(ForgetWorker("a"));
  Series series = ScrapeUntil([](const Series& s) { return SumOf(s, "trainyard_workers") == 0; });
  EXPECT_EQ(SumOf(series, "trainyard_slots"), 0);
  Restart();  // it stays forgotten
  series = ScrapeUntil([](const Series& s) { return s.contains("trainyard_workers{state=\"lost\"}"); });
  EXPECT_EQ(SumOf(series, "trainyard_workers"), 0);
}

}  // namespace
}  // namespace trainyard::coordinator
