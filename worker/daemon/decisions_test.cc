// The small pure classes: lease view, hang watchdog, exit classes, progress buffer.
#include <csignal>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/daemon/exit_class.h"
#include "worker/daemon/hang_watchdog.h"
#include "worker/daemon/lease_view.h"
#include "worker/daemon/progress_buffer.h"

namespace trainyard::daemon {
namespace {

using absl::Seconds;

// CP-23. Fails for a view that counts from the arrival of the acknowledgement.
TEST(LeaseViewTest, CountsFromTheSendingOfTheAcknowledgedHeartbeat) {
  LeaseView lease(Seconds(0));
  lease.Registered(Seconds(15), Seconds(600), Seconds(0));
  lease.HeartbeatSent(1, Seconds(3));
  lease.HeartbeatSent(2, Seconds(6));
  lease.HeartbeatAcked(1);  // whenever it came
  EXPECT_TRUE(lease.Holds(Seconds(17)));
  EXPECT_FALSE(lease.Holds(Seconds(18)));
  lease.HeartbeatAcked(2);
  EXPECT_TRUE(lease.Holds(Seconds(20)));
  EXPECT_FALSE(lease.Holds(Seconds(21)));
  lease.HeartbeatAcked(7);  // never sent
  lease.HeartbeatAcked(1);  // again
  EXPECT_EQ(lease.contact(), Seconds(6));
}

TEST(LeaseViewTest, FencesItselfAfterTheGivenSilenceAndNotBefore) {
  LeaseView lease(Seconds(100));
  lease.Registered(Seconds(15), Seconds(600), Seconds(100));
  EXPECT_FALSE(lease.MustFence(Seconds(699.9)));
  EXPECT_TRUE(lease.MustFence(Seconds(700)));
}

TEST(LeaseViewTest, AcknowledgementOfAnOlderSessionDoesNotCount) {
  LeaseView lease(Seconds(0));
  lease.HeartbeatSent(1, Seconds(50));
  lease.Registered(Seconds(15), Seconds(600), Seconds(10));
  lease.HeartbeatAcked(1);
  EXPECT_EQ(lease.contact(), Seconds(10));
}

HangWatchdog Warm(absl::Duration step_time, int steps) {
  HangWatchdog watchdog({.factor = 5, .floor = Seconds(60), .warmup_steps = 5});
  watchdog.Start(0, Seconds(0));
  for (int i = 1; i <= steps; ++i) watchdog.Progress(i, "train", i * step_time);
  return watchdog;
}

TEST(HangWatchdogTest, IsOffInWarmUp) {
  EXPECT_EQ(Warm(Seconds(1), 4).Timeout(), absl::InfiniteDuration());
  EXPECT_EQ(Warm(Seconds(1), 5).Timeout(), Seconds(60));
}

TEST(HangWatchdogTest, TakesTheLargerOfFloorAndFactorTimesP99) {
  EXPECT_EQ(Warm(Seconds(20), 10).Timeout(), Seconds(100));
  HangWatchdog watchdog = Warm(Seconds(20), 10);
  EXPECT_FALSE(watchdog.Expired(Seconds(300)));
  EXPECT_TRUE(watchdog.Expired(Seconds(301)));
}

// One slow step of 100 is the p99 only when it is the only larger one; fails for a mean or a maximum over all time.
TEST(HangWatchdogTest, ForgetsStepsBeyondTheLastHundred) {
  HangWatchdog watchdog({.factor = 5, .floor = Seconds(1), .warmup_steps = 0});
  watchdog.Start(0, Seconds(0));
  watchdog.Progress(1, "train", Seconds(50));
  for (int i = 2; i <= 101; ++i) watchdog.Progress(i, "train", Seconds(48 + i));
  EXPECT_EQ(watchdog.Timeout(), Seconds(5));
}

TEST(HangWatchdogTest, OtherSectionsLiveBySignsAndDoNotStretchSteps) {
  HangWatchdog watchdog = Warm(Seconds(1), 10);
  watchdog.Progress(10, "evaluate", Seconds(10));
  EXPECT_EQ(watchdog.Timeout(), Seconds(600));
  watchdog.Progress(10, "evaluate", Seconds(500));
  EXPECT_FALSE(watchdog.Expired(Seconds(1100)));
  EXPECT_TRUE(watchdog.Expired(Seconds(1101)));
  watchdog.Progress(10, "train", Seconds(1000));
  watchdog.Progress(11, "train", Seconds(1001));
  EXPECT_EQ(watchdog.Timeout(), Seconds(60));
  EXPECT_TRUE(watchdog.Expired(Seconds(1062)));
}

// Polls in "train" must not hide a step that never ends.
TEST(HangWatchdogTest, ARepeatedStepIsNoSignOfLife) {
  HangWatchdog watchdog = Warm(Seconds(1), 10);
  watchdog.Progress(10, "train", Seconds(69));
  EXPECT_TRUE(watchdog.Expired(Seconds(71)));
}

v1::ExitRecord Classify(std::optional<int> code, std::optional<int> signal, EndContext context = {}) {
  return ClassifyEnd({code, signal}, context);
}

TEST(ExitClassTest, FollowsTheTableOfFailureClasses) {
  EXPECT_EQ(Classify(64, {}).failure_class(), v1::FAILURE_CLASS_PERMANENT);
  EXPECT_EQ(Classify(65, {}).failure_class(), v1::FAILURE_CLASS_PERMANENT);
  EXPECT_EQ(Classify(78, {}).failure_class(), v1::FAILURE_CLASS_PERMANENT);
  EXPECT_EQ(Classify(75, {}).failure_class(), v1::FAILURE_CLASS_INFRA);
  EXPECT_EQ(Classify(1, {}).failure_class(), v1::FAILURE_CLASS_USER);
  EXPECT_EQ(Classify({}, SIGKILL).failure_class(), v1::FAILURE_CLASS_INFRA);
  EXPECT_EQ(Classify({}, SIGSEGV).failure_class(), v1::FAILURE_CLASS_USER);
  EXPECT_EQ(Classify({}, SIGSEGV).signal(), SIGSEGV);
}

TEST(ExitClassTest, ZeroIsSuccessOnlyWithAResult) {
  EndContext done;
  done.has_result = true;
  EXPECT_EQ(Classify(0, {}, done).reason(), "COMPLETED");
  EXPECT_EQ(Classify(0, {}).reason(), "STOPPED");
  EXPECT_EQ(Classify(0, {}).failure_class(), v1::FAILURE_CLASS_CONTROL);
  EXPECT_NE(Classify({}, SIGKILL, done).reason(), "COMPLETED");
}

// CP-33: 137 and 143 that the daemon itself caused are CONTROL; a failure named before the stop stays one.
TEST(ExitClassTest, WhatWeStoppedIsControl) {
  EndContext stopped;
  stopped.stop = v1::STOP_REASON_CANCEL;
  EXPECT_EQ(Classify({}, SIGKILL, stopped).failure_class(), v1::FAILURE_CLASS_CONTROL);
  EXPECT_EQ(Classify(75, {}, stopped).failure_class(), v1::FAILURE_CLASS_CONTROL);
  stopped.failure.emplace();
  stopped.failure->set_failure_class(v1::FAILURE_CLASS_USER);
  stopped.failure->set_reason("NAN");
  EXPECT_EQ(Classify({}, SIGKILL, stopped).reason(), "NAN");
}

v1::RankProgress Step(int64_t step) {
  v1::RankProgress progress;
  progress.set_step(step);
  progress.set_section("train");
  (*progress.mutable_values())["loss"] = static_cast<double>(step);
  return progress;
}

TEST(ProgressBufferTest, SendsEachStepOnceUntilASessionIsLost) {
  ProgressBuffer buffer{v1::AttemptRef()};
  EXPECT_FALSE(buffer.Take(0).has_value());
  buffer.Add(Step(1), absl::UnixEpoch());
  buffer.Add(Step(2), absl::UnixEpoch());
  EXPECT_EQ(buffer.Take(7)->samples_size(), 2);
  EXPECT_FALSE(buffer.Take(7).has_value());
  buffer.HeartbeatAcked(7);  // sent before the samples: proves nothing
  EXPECT_EQ(buffer.kept(), 2u);
  buffer.Rewind();
  EXPECT_EQ(buffer.Take(8)->samples_size(), 2);
  buffer.HeartbeatAcked(9);
  EXPECT_EQ(buffer.kept(), 0u);
}

TEST(ProgressBufferTest, NumbersOfAMomentAreProgressAndNoStep) {
  ProgressBuffer buffer{v1::AttemptRef()};
  buffer.Add(Step(1), absl::UnixEpoch());
  v1::RankProgress progress;
  progress.set_step(1);
  (*progress.mutable_moment())["generation_trials_done"] = 3;
  buffer.Add(progress, absl::UnixEpoch());
  const auto report = buffer.Take(0);
  ASSERT_TRUE(report.has_value());
  ASSERT_EQ(report->samples_size(), 1);
  EXPECT_EQ(report->samples(0).values().count("generation_trials_done"), 0u);
  EXPECT_EQ(report->progress().values().at("generation_trials_done"), 3);
  EXPECT_EQ(report->progress().values().at("loss"), 1);
  (*progress.mutable_moment())["generation_trials_done"] = 4;
  buffer.Add(progress, absl::UnixEpoch());
  const auto next = buffer.Take(0);
  ASSERT_TRUE(next.has_value()) << "it is news, though no step ended";
  EXPECT_EQ(next->samples_size(), 0);
  EXPECT_EQ(next->progress().values().at("generation_trials_done"), 4);
}

TEST(ProgressBufferTest, ThinsTheOlderHalfInsteadOfForgettingIt) {
  ProgressBuffer buffer(v1::AttemptRef(), 100);
  for (int i = 1; i <= 101; ++i) buffer.Add(Step(i), absl::UnixEpoch());
  const v1::ProgressReport report = *buffer.Take(0);
  EXPECT_EQ(report.samples_size(), 76);
  EXPECT_EQ(report.samples(0).step(), 1);
  EXPECT_EQ(report.samples(75).step(), 101);
}

}  // namespace
}  // namespace trainyard::daemon
