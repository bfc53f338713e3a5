// The daemon against a coordinator over real gRPC, with real runner processes.
#include "worker/daemon/daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/testing/fake_clock.h"
#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "worker/daemon/testing/daemon_fixture.h"

namespace trainyard::daemon {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(DaemonTest, RunsATaskToItsResultWithAllItsLogsAndMetrics) {
  Start();
  Assign(5, {"print:3000 ready steps:20 print:10 result exit:0", "ready result exit:0"});
  StartTask(5);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED)) << coordinator.report(5).DebugString();
  const v1::TaskReport report = coordinator.report(5);
  EXPECT_EQ(report.ranks(0).comm_address(), "address of rank 0");
  EXPECT_TRUE(report.ranks(0).succeeded());
  EXPECT_TRUE(report.ranks(1).succeeded());
  EXPECT_EQ(report.result().samples(0), "once upon a time");
  std::string expected;
  for (const int count : {3000, 10}) {
    for (int i = 0; i < count; ++i) absl::StrAppend(&expected, "line ", i, "\n");
  }
  EXPECT_TRUE(WaitUntil([&] { return coordinator.log("job5", 0, "stdout") == expected + "<end>"; }))
      << coordinator.log("job5", 0, "stdout").size() << " of " << expected.size();
  EXPECT_TRUE(WaitUntil([&] { return coordinator.log("job5", 1, "stderr") == "<end>"; }));
  EXPECT_TRUE(WaitUntil([&] { return coordinator.metric("loss").size() == 20; }));
  // Nothing is left of an acknowledged task.
  EXPECT_TRUE(WaitUntil([&] { return ListDir(dir.Join("state/tasks"))->empty(); }));
  EXPECT_TRUE(WaitUntil([&] { return !FileExists(dir.Join("state/logs/job5/1/pending")); }));
}

TEST(DaemonMetricsTest, WhatAnExchangeReportsHasBoundedSeries) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Metrics> metrics, Metrics::Create("127.0.0.1:0"));
  metrics->TaskBegan("job", {0});
  v1::RankProgress progress;
  (*progress.mutable_values())["comm_phase1_bytes_maxmin"] = 300;
  (*progress.mutable_values())["comm_phase1_bytes_none"] = 40;
  (*progress.mutable_values())["comm_phase2_bytes_maxmin"] = 500;
  (*progress.mutable_values())["comm_control_bytes"] = 6;
  (*progress.mutable_values())["quant_seconds"] = 0.25;
  (*progress.mutable_values())["quant_nmse_mlp"] = 0.125;
  (*progress.mutable_values())["bits_mlp"] = 4;
  metrics->Progress("job", 0, progress, absl::UnixEpoch());
  const std::string page = Scrape(metrics->port());
  const auto bytes = [](const char* codec, const char* op) {
    return absl::StrCat("trainyard_comm_bytes_total{codec=\"", codec, "\",job=\"job\",op=\"exchange_", op,
                        "\",rank=\"0\"} ");
  };
  EXPECT_THAT(page, HasSubstr(bytes("maxmin", "phase1") + "300\n"));
  EXPECT_THAT(page, HasSubstr(bytes("none", "phase1") + "40\n"));
  EXPECT_THAT(page, HasSubstr(bytes("maxmin", "phase2") + "500\n"));
  EXPECT_THAT(page, HasSubstr(bytes("none", "control") + "6\n"));
  EXPECT_THAT(page, HasSubstr("trainyard_comm_seconds_sum{job=\"job\",op=\"quantize\",rank=\"0\"} 0.25"));
  EXPECT_THAT(page, HasSubstr("trainyard_comm_seconds_count{job=\"job\",op=\"quantize\",rank=\"0\"} 1"));
  EXPECT_THAT(page, HasSubstr("trainyard_quant_nmse{job=\"job\",layer_type=\"mlp\",rank=\"0\"} 0.125"));
  EXPECT_THAT(page, HasSubstr("trainyard_quant_bits{job=\"job\",layer_type=\"mlp\",rank=\"0\"} 4"));
  for (int i = 0; i < 500; ++i) {
    (*progress.mutable_values())[absl::StrCat("bits_t", i)] = 4;
    (*progress.mutable_values())[absl::StrCat("comm_phase1_bytes_c", i)] = 4;
  }
  metrics->Progress("job", 0, progress, absl::UnixEpoch());
  const std::vector<std::string> lines = absl::StrSplit(Scrape(metrics->port()), '\n');
  const auto count = [&](const std::string& prefix) {
    return std::count_if(lines.begin(), lines.end(),
                         [&](const std::string& line) { return line.rfind(prefix, 0) == 0; });
  };
  EXPECT_LE(count("trainyard_quant_"), 84);
  EXPECT_LE(count("trainyard_comm_bytes_total"), 20);
  metrics->TaskEnded("job");
  EXPECT_EQ(Scrape(metrics->port()).find("job=\"job\""), std::string::npos);
}

TEST(DaemonMetricsTest, UsesOfTheCacheAreTheWorkers) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Metrics> metrics, Metrics::Create("127.0.0.1:0"));
  EXPECT_THAT(Scrape(metrics->port()), HasSubstr("trainyard_worker_cache_files_total{result=\"bypass\"} 0"));
  v1::RankProgress progress;
  (*progress.mutable_values())["cache_hit_files"] = 20;
  (*progress.mutable_values())["cache_miss_files"] = 3;
  (*progress.mutable_values())["cache_miss_bytes"] = 4096;
  for (const char* job : {"one", "two"}) {
    metrics->TaskBegan(job, {0});
    metrics->Progress(job, 0, progress, absl::UnixEpoch());
    metrics->TaskEnded(job);
  }
  const std::string page = Scrape(metrics->port());
  EXPECT_THAT(page, HasSubstr("trainyard_worker_cache_files_total{result=\"hit\"} 40"));
  EXPECT_THAT(page, HasSubstr("trainyard_worker_cache_files_total{result=\"miss\"} 6"));
  EXPECT_THAT(page, HasSubstr("trainyard_worker_cache_bytes_total{result=\"miss\"} 8192"));
}

TEST(DaemonMetricsTest, ManyTasksLeaveNoSeries) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Metrics> metrics, Metrics::Create("127.0.0.1:0"));
  // Names of series with their labels. The exposer's own grow with the first scrapes.
  const auto series = [&] {
    std::set<std::string> names;
    for (const absl::string_view line : absl::StrSplit(Scrape(metrics->port()), '\n')) {
      if (absl::StartsWith(line, "trainyard_")) names.emplace(line.substr(0, line.rfind(' ')));
    }
    return names;
  };
  const std::set<std::string> base = series();
  v1::RankProgress progress;
  progress.set_step(1);
  for (const char* name : {"loss", "step_seconds", "tokens", "comm_seconds", "comm_exposed_seconds", "quant_seconds",
                           "comm_control_bytes", "comm_phase1_bytes_maxmin", "comm_phase2_bytes_none", "quant_nmse_mlp",
                           "bits_mlp", "masked_fraction_mlp_inputs", "checkpoint_step", "checkpoint_write_seconds",
                           "checkpoint_blocking_seconds", "mfu", "eta"}) {
    (*progress.mutable_values())[name] = 1;
  }
  size_t most = 0;
  for (int job = 0; job < 60; ++job) {
    const std::string uid = absl::StrCat("job-", job);
    metrics->TaskBegan(uid, {0, 1});
    for (const int rank : {0, 1}) {
      metrics->Progress(uid, rank, progress, absl::UnixEpoch());
      metrics->Goodput(uid, rank, {{"productive", 1.0}, {"nobody knows", 1.0}});
    }
    if (job % 20 == 0) most = std::max(most, series().size());
    metrics->RankEnded(absl::StrCat("REASON_", job));
    metrics->TaskEnded(uid);
  }
  EXPECT_GT(most, base.size() + 100);  // they were there
  const std::set<std::string> left = series();
  for (const std::string& name : base) EXPECT_TRUE(left.contains(name)) << name;
  for (const std::string& name : left) EXPECT_FALSE(absl::StrContains(name, "job=")) << name;
  EXPECT_EQ(left.size(), base.size() + Metrics::kMostReasons + 1);
}

TEST(DaemonMetricsTest, ADriversGenerationShowsWhileItsUnitRuns) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Metrics> metrics, Metrics::Create("127.0.0.1:0"));
  metrics->TaskBegan("search", {0});
  v1::RankProgress progress;
  (*progress.mutable_moment())["generation_number"] = 4;
  (*progress.mutable_moment())["generation_trials_done"] = 7;
  (*progress.mutable_moment())["nobody_knows_this"] = 1;
  metrics->Progress("search", 0, progress, absl::UnixEpoch());
  const std::string page = Scrape(metrics->port());
  EXPECT_THAT(page, HasSubstr("trainyard_generation_number{job=\"search\",rank=\"0\"} 4"));
  EXPECT_THAT(page, HasSubstr("trainyard_generation_trials_done{job=\"search\",rank=\"0\"} 7"));
  EXPECT_EQ(page.find("nobody_knows_this"), std::string::npos);
  metrics->TaskEnded("search");
  EXPECT_EQ(Scrape(metrics->port()).find("trainyard_generation_number{"), std::string::npos);
}

TEST(DaemonMetricsTest, ReadyMeansConnected) {
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Metrics> metrics, Metrics::Create("127.0.0.1:0"));
  EXPECT_THAT(Scrape(metrics->port(), "/livez"), HasSubstr(" 200 OK"));
  EXPECT_THAT(Scrape(metrics->port(), "/readyz"), HasSubstr("no session with the coordinator is open"));
  metrics->SetConnected(true);
  EXPECT_THAT(Scrape(metrics->port(), "/readyz"), HasSubstr(" 200 OK"));
}

TEST_F(DaemonTest, SeriesOfARankComeWithItAndGoWithIt) {
  Start();
  Assign(5, {"ready train"});
  StartTask(5);
  EXPECT_TRUE(WaitUntil([&] { return Scrape(metrics->port()).find("trainyard_loss{") != std::string::npos; }));
  const std::string page = Scrape(metrics->port());
  EXPECT_THAT(page, HasSubstr("trainyard_tokens_total{job=\"job5\",rank=\"0\"}"));
  EXPECT_THAT(page, HasSubstr("trainyard_goodput_seconds_total{category=\"data_wait\",job=\"job5\",rank=\"0\"} 0"));
  EXPECT_THAT(page, HasSubstr("trainyard_worker_coordinator_connected 1"));
  EXPECT_THAT(page, HasSubstr("trainyard_worker_slots{state=\"busy\",type=\"cpu\"} 1"));
  StopTask(5, true, absl::Seconds(20));
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_TRUE(WaitUntil([&] { return Scrape(metrics->port()).find("job5") == std::string::npos; }));
}

TEST_F(DaemonTest, AKilledRankIsInfraAndItsPeerIsStoppedForIt) {
  Start();
  Assign(5, {"ready train", "ready child train"});
  StartTask(5);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_RUNNING));
  const pid_t peer = PidOf(5, 0);
  kill(PidOf(5, 1), SIGKILL);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_EQ(Exit(5, 1).failure_class(), v1::FAILURE_CLASS_INFRA);
  EXPECT_EQ(Exit(5, 1).signal(), SIGKILL);
  EXPECT_EQ(Exit(5, 1).reason(), "RANK_KILLED");
  EXPECT_THAT(Exit(5, 1).last_log_lines(0), HasSubstr("child"));
  EXPECT_EQ(Exit(5, 0).failure_class(), v1::FAILURE_CLASS_CONTROL);
  EXPECT_FALSE(IsAlive(peer));
}

TEST_F(DaemonTest, ARunnersOwnFailureAndExitCodeAreReported) {
  Start();
  Assign(5, {"ready fail:NAN_LOSS exit:70"});
  StartTask(5);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_EQ(Exit(5, 0).reason(), "NAN_LOSS");
  EXPECT_EQ(Exit(5, 0).failure_class(), v1::FAILURE_CLASS_USER);
  EXPECT_EQ(Exit(5, 0).exit_code(), 70);
  EXPECT_EQ(Exit(5, 0).last_log_lines(0), "failing: NAN_LOSS");
}

// CP-29, I18.
TEST_F(DaemonTest, WhatDoesNotListenIsKilledWithAllItStartedWhenTheGraceEnds) {
  Start();
  Assign(5, {"ready child deaf train"});
  StartTask(5);
  ASSERT_TRUE(WaitUntil([&] { return coordinator.log("job5", 0, "stdout").find('\n') != std::string::npos; }));
  const pid_t rank = PidOf(5, 0);
  const pid_t child = std::stoi(coordinator.log("job5", 0, "stdout").substr(6));
  EXPECT_TRUE(IsAlive(child));
  StopTask(5, true, absl::Milliseconds(400));
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_FALSE(IsAlive(rank));
  EXPECT_FALSE(IsAlive(child));
  EXPECT_EQ(Exit(5, 0).failure_class(), v1::FAILURE_CLASS_CONTROL);
}

// An attempt may end right after the commit, and the next one begins at the checkpoint.
TEST_F(DaemonTest, MetricsOfAllStepsComeBeforeTheirCheckpoint) {
  DaemonOptions options = Options();
  options.progress_interval = absl::Hours(1);
  Start(options);
  Assign(5, {"ready steps:9 checkpoint train"});
  StartTask(5);
  ASSERT_TRUE(WaitUntil([&] { return coordinator.commits().count(10) > 0; }));
  EXPECT_EQ(coordinator.commits().at(10), 9);
  StopTask(5, true, absl::Seconds(20));
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
}

// CP-24, with an outage of 20 s on the daemon's clock: longer than the lease, shorter than the self-fence.
TEST_F(DaemonTest, TrainingGoesOnThroughAnOutageAndNothingIsLost) {
  FakeClock clock;
  DaemonOptions options = Options();
  options.clock = &clock;
  options.progress_interval = options.log_interval = absl::ZeroDuration();
  Start(options);
  Assign(5, {"ready steps:5 print:100 checkpoint steps:50 print:100 train"});
  coordinator.commit_code = 0;
  StartTask(5);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_RUNNING));
  const pid_t rank = PidOf(5, 0);
  coordinator.Stop();
  clock.Advance(absl::Seconds(20));
  poll(nullptr, 0, 200);  // some failed attempts to reconnect
  EXPECT_TRUE(IsAlive(rank));
  coordinator.Start();
  ASSERT_TRUE(WaitUntil([&] { return coordinator.registrations().size() >= 2; }));
  const v1::Register again = coordinator.registrations().back();
  EXPECT_EQ(again.incarnation(), coordinator.registrations().front().incarnation());
  ASSERT_EQ(again.tasks_size(), 1);
  EXPECT_EQ(again.tasks(0).state(), v1::TASK_STATE_RUNNING);
  // The commit that was asked for while nobody listened has been answered, and no step is missing.
  ASSERT_TRUE(WaitUntil([&] { return coordinator.metric("loss").size() > 60; }));
  EXPECT_EQ(coordinator.metric("verdict").size(), 1u);
  int64_t next = 1;
  for (const auto& [step, loss] : coordinator.metric("loss")) EXPECT_EQ(step, next++);
  EXPECT_EQ(PidOf(5, 0), rank);
  StopTask(5, true, absl::Seconds(20));
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  std::string expected;
  for (int k = 0; k < 2; ++k) {
    for (int i = 0; i < 100; ++i) absl::StrAppend(&expected, "line ", i, "\n");
  }
  EXPECT_TRUE(WaitUntil([&] { return coordinator.log("job5", 0, "stdout") == expected + "<end>"; }));
}

// CP-25.
TEST_F(DaemonTest, StopsItsTasksAfterTheSelfFenceTimeAndNotBefore) {
  FakeClock clock;
  DaemonOptions options = Options();
  options.clock = &clock;
  Start(options);
  Assign(5, {"ready train"});
  StartTask(5);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_RUNNING));
  const pid_t rank = PidOf(5, 0);
  coordinator.Stop();
  clock.Advance(absl::Seconds(598));
  poll(nullptr, 0, 100);
  EXPECT_TRUE(IsAlive(rank));
  clock.Advance(absl::Seconds(5));
  EXPECT_TRUE(WaitUntil([&] { return !IsAlive(rank); }));
  coordinator.Start();
  EXPECT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
}

TEST_F(DaemonTest, ReconcileStopsWhatTheCoordinatorDoesNotWant) {
  Start();
  Assign(5, {"ready train"});
  StartTask(5);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_RUNNING));
  const pid_t rank = PidOf(5, 0);
  coordinator.Stop();
  v1::TaskDecision* decision = coordinator.registered.add_decisions();
  *decision->mutable_ref() = coordinator.report(5).ref();
  decision->set_quarantine(true);
  decision->mutable_stop()->set_reason(v1::STOP_REASON_STALE);
  *decision->mutable_stop()->mutable_ref() = decision->ref();
  coordinator.registered.set_leader_epoch(2);
  coordinator.Start();
  EXPECT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_FALSE(IsAlive(rank));
  EXPECT_TRUE(WaitUntil([&] { return FileExists(dir.Join("jobs/quarantine/job5")); }));
}

// CP-26.
TEST_F(DaemonTest, RefusesSmallerEpochsAndFences) {
  coordinator.registered.set_leader_epoch(3);
  Start();
  v1::CoordinatorMessage old = AssignOf(50, {"ready"}, absl::Seconds(1));
  old.mutable_assign()->set_leader_epoch(2);
  coordinator.Push(old);
  v1::CoordinatorMessage good = AssignOf(40, {"exit:0"}, absl::Seconds(1));
  good.mutable_assign()->set_leader_epoch(3);
  coordinator.Push(good);
  ASSERT_TRUE(WaitForState(40, v1::TASK_STATE_EXITED));
  good = AssignOf(39, {"exit:0"}, absl::Seconds(1));
  good.mutable_assign()->set_leader_epoch(3);
  coordinator.Push(good);
  ASSERT_TRUE(WaitForState(39, v1::TASK_STATE_EXITED));
  EXPECT_EQ(Exit(39, 0).reason(), "SPAWN_FAILED");
  EXPECT_THAT(Exit(39, 0).message(), HasSubstr("older than 40"));
  EXPECT_EQ(coordinator.report(50).sequence(), 0u) << "an assignment of a deposed leader was acted on";
  // A leader with a smaller epoch than the largest seen gets no session.
  coordinator.Stop();
  coordinator.registered.set_leader_epoch(2);
  const int before = coordinator.heartbeats();
  coordinator.Start();
  ASSERT_TRUE(WaitUntil([&] { return coordinator.registrations().size() >= 3; }));
  EXPECT_EQ(coordinator.heartbeats(), before);
  EXPECT_EQ(coordinator.registrations().back().max_leader_epoch(), 3u);
  EXPECT_EQ(coordinator.registrations().back().max_fence(), 40u);
}

TEST_F(DaemonTest, ABusySlotIsNotGivenTwice) {
  Start();
  Assign(5, {"ready train"});
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_READY));
  Assign(6, {"ready"});
  ASSERT_TRUE(WaitForState(6, v1::TASK_STATE_EXITED));
  EXPECT_THAT(Exit(6, 0).message(), HasSubstr("slot 0 is busy"));
  EXPECT_EQ(coordinator.state(5), v1::TASK_STATE_READY);
}

TEST_F(DaemonTest, DrainStopsTasksReportsThemAndLeaves) {
  Start();
  Assign(5, {"ready train"});
  StartTask(5);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_RUNNING));
  daemon->Drain();
  thread.join();
  EXPECT_OK(end);
  EXPECT_EQ(coordinator.state(5), v1::TASK_STATE_EXITED);
  EXPECT_EQ(Exit(5, 0).failure_class(), v1::FAILURE_CLASS_CONTROL);
  EXPECT_THAT(coordinator.log("job5", 0, "stdout"), HasSubstr("<end>"));
  daemon.reset();
}

// CP-14: the daemon repeats the request until all is told, and then no more.
TEST_F(DaemonTest, TrialsAreAskedForInEverySessionUntilTheirOutcomesAreComplete) {
  Start();
  Assign(5, {"ready trials:1 trials:2 result exit:0"});
  StartTask(5);
  ASSERT_TRUE(WaitUntil([&] { return coordinator.trial_requests().size() == 1; }));
  const v1::RunTrials request = coordinator.trial_requests()[0];
  EXPECT_EQ(request.ref().job_uid(), "job5");
  EXPECT_EQ(request.ref().attempt(), 1);
  EXPECT_EQ(request.ref().fence(), 5u);
  EXPECT_EQ(request.generation().number(), 1);
  EXPECT_EQ(request.generation().specs_size(), 3);
  SayOutcomes(5, 1, {2}, false);
  ASSERT_TRUE(WaitForLog(5, "generation 1: 2 more\n"));

  // Not complete: the same request again, and everything may come again.
  coordinator.Stop();
  coordinator.Start();
  ASSERT_TRUE(WaitUntil([&] { return coordinator.trial_requests().size() == 2; }));
  EXPECT_EQ(coordinator.trial_requests()[1].SerializeAsString(), request.SerializeAsString());
  SayOutcomes(5, 1, {0, 1, 2}, true);
  ASSERT_TRUE(WaitForLog(5, "generation 1: 0 1 2 done\n"));
  ASSERT_TRUE(WaitUntil([&] { return coordinator.trial_requests().size() == 3; }));
  EXPECT_EQ(coordinator.trial_requests()[2].generation().number(), 2);

  // What belongs to another attempt or to a generation that is over does not reach the rank.
  v1::CoordinatorMessage other;
  *other.mutable_trials_ack()->mutable_ref() = request.ref();
  other.mutable_trials_ack()->mutable_ref()->set_attempt(2);
  other.mutable_trials_ack()->mutable_outcomes()->set_generation(2);
  other.mutable_trials_ack()->mutable_outcomes()->set_done(true);
  coordinator.Push(other);
  SayOutcomes(5, 1, {0, 1, 2}, true);
  SayOutcomes(5, 2, {}, false, 9);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_EQ(Exit(5, 0).reason(), "COMPLETED");
  ASSERT_TRUE(WaitForLog(5, "<end>"));
  EXPECT_EQ(coordinator.log("job5", 0, "stdout"),
            "generation 1: 2 more\ngeneration 1: 0 1 2 done\ngeneration 2: refused 9\n<end>");
  EXPECT_EQ(coordinator.trial_requests().size(), 3u);
}

TEST_F(DaemonTest, ATaskThatWaitsForTrialsCanBeStopped) {
  Start();
  Assign(5, {"ready trials:1"});
  StartTask(5);
  ASSERT_TRUE(WaitUntil([&] { return !coordinator.trial_requests().empty(); }));
  StopTask(5, true, absl::Seconds(20));
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_EXITED));
  EXPECT_EQ(Exit(5, 0).failure_class(), v1::FAILURE_CLASS_CONTROL);
  coordinator.Stop();
  coordinator.Start();
  ASSERT_TRUE(WaitUntil([&] { return coordinator.registrations().size() >= 2; }));
  const int heartbeats = coordinator.heartbeats();
  ASSERT_TRUE(WaitUntil([&] { return coordinator.heartbeats() > heartbeats + 2; }));
  EXPECT_EQ(coordinator.trial_requests().size(), 1u) << "asked for a task that is over";
}

// Two CPU slots (0 and 1), then the driver slots: busy with a task of their own, locked and fenced like the others.
TEST_F(DaemonTest, DriverSlotsComeAfterTheOthersAndRunWhileThoseAreBusy) {
  DaemonOptions options = Options();
  options.driver_slots = 3;
  Start(options);
  const v1::Register registered = coordinator.registrations()[0];
  ASSERT_EQ(registered.slots_size(), 5);
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(registered.slots(i).index(), i);
    EXPECT_EQ(registered.slots(i).type(), i < 2 ? v1::SLOT_TYPE_CPU : v1::SLOT_TYPE_DRIVER);
    EXPECT_TRUE(registered.slots(i).healthy());
  }
  Assign(5, {"ready train", "ready train"});
  StartTask(5);
  v1::CoordinatorMessage driver = AssignOf(6, {"artifacts ready train"}, absl::Seconds(20));
  driver.mutable_assign()->mutable_ranks(0)->set_slot(4);
  v1::ResolvedArtifact* artifact = driver.mutable_assign()->add_artifacts();
  artifact->mutable_ref()->set_job("before");
  artifact->mutable_ref()->set_artifact("model");
  artifact->set_path("/jobs/before/model");
  coordinator.Push(driver);
  StartTask(6);
  ASSERT_TRUE(WaitForState(6, v1::TASK_STATE_RUNNING));
  EXPECT_TRUE(WaitForLog(6, "before/model /jobs/before/model\n"));
  EXPECT_TRUE(FileExists(dir.Join("state/slot-4.lock")));
  EXPECT_TRUE(WaitUntil([&] {
    const std::string page = Scrape(metrics->port());
    return page.find("trainyard_worker_slots{state=\"busy\",type=\"driver\"} 1") != std::string::npos &&
           page.find("trainyard_worker_slots{state=\"free\",type=\"driver\"} 2") != std::string::npos &&
           page.find("trainyard_worker_slots{state=\"free\",type=\"cpu\"} 0") != std::string::npos;
  })) << Scrape(metrics->port());
  v1::CoordinatorMessage beyond = AssignOf(7, {"ready"}, absl::Seconds(1));
  beyond.mutable_assign()->mutable_ranks(0)->set_slot(5);
  coordinator.Push(beyond);
  ASSERT_TRUE(WaitForState(7, v1::TASK_STATE_EXITED));
  EXPECT_THAT(Exit(7, 0).message(), HasSubstr("slot 5 not in [0, 5)"));
}

// The program itself, killed: nothing lives on, and the next start tells what happened.
class KilledDaemonTest : public DaemonTest {
 protected:
  pid_t StartProgram() {
    const std::vector<std::string> argv = {Program("trainyard-worker"),
                                           "--coordinator",
                                           coordinator.address(),
                                           "--state_dir",
                                           dir.Join("state"),
                                           "--job_root",
                                           dir.Join("jobs"),
                                           "--data_root",
                                           dir.path(),
                                           "--cpu_slots",
                                           "2",
                                           "--gpus",
                                           "none",
                                           "--address",
                                           "127.0.0.1",
                                           "--runner",
                                           Program("fake_runner"),
                                           "--metrics_listen",
                                           "127.0.0.1:0",
                                           "--port_file",
                                           dir.Join("ports")};
    std::vector<char*> words;
    for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    const std::string log = dir.Join("log");
    pid_t pid = vfork();
    if (pid == 0) {
      const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      dup2(fd, 2);
      execv(words[0], words.data());
      _exit(127);
    }
    return pid;
  }
};

TEST_F(KilledDaemonTest, LeavesNothingAndItsSuccessorReportsTheEnd) {
  const pid_t first = StartProgram();
  ASSERT_TRUE(WaitUntil([&] { return !coordinator.registrations().empty(); }));
  Assign(5, {"ready child train", "ready deaf train"});
  StartTask(5);
  ASSERT_TRUE(WaitForState(5, v1::TASK_STATE_RUNNING));
  ASSERT_TRUE(WaitUntil([&] { return coordinator.log("job5", 0, "stdout").find('\n') != std::string::npos; }));
  const std::vector<pid_t> pids = {PidOf(5, 0), PidOf(5, 1), std::stoi(coordinator.log("job5", 0, "stdout").substr(6))};

  // Two daemons on one state folder: the second one refuses and names the first.
  const pid_t twin = StartProgram();
  int status = 0;
  waitpid(twin, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
  EXPECT_THAT(*ReadFile(dir.Join("log")), HasSubstr(absl::StrCat("pid ", first)));

  kill(first, SIGKILL);
  waitpid(first, nullptr, 0);
  for (const pid_t pid : pids) EXPECT_TRUE(WaitUntil([&] { return !IsAlive(pid); })) << pid;

  const pid_t second = StartProgram();
  ASSERT_TRUE(WaitUntil([&] { return coordinator.registrations().size() == 2; }));
  const v1::Register before = coordinator.registrations()[0];
  const v1::Register after = coordinator.registrations()[1];
  EXPECT_EQ(after.worker_id(), before.worker_id());
  EXPECT_EQ(after.start_count(), before.start_count() + 1);
  EXPECT_NE(after.incarnation(), before.incarnation());
  EXPECT_EQ(after.max_fence(), 5u);
  ASSERT_EQ(after.tasks_size(), 1);
  EXPECT_EQ(after.tasks(0).state(), v1::TASK_STATE_EXITED);
  EXPECT_EQ(after.tasks(0).ranks(0).exit().reason(), "DAEMON_RESTARTED");
  // And the logs that had not gone yet.
  EXPECT_TRUE(WaitUntil([&] { return coordinator.log("job5", 0, "stdout").find("<end>") != std::string::npos; }));
  EXPECT_THAT(*ReadFile(dir.Join("ports")), HasSubstr("metrics 127.0.0.1:"));
  kill(second, SIGTERM);
  waitpid(second, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << *ReadFile(dir.Join("log"));
}

}  // namespace
}  // namespace trainyard::daemon

int main(int argc, char** argv) {
  return trainyard::daemon::RunDaemonTests(argc, argv);
}
