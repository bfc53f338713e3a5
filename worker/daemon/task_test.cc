#include "worker/daemon/task.h"

#include <csignal>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/daemon/proto_time.h"

namespace trainyard::daemon {
namespace {

using absl::Seconds;

constexpr absl::Time kWall = absl::UnixEpoch();

v1::Assign TwoRanks() {
  v1::Assign assign;
  assign.mutable_ref()->set_job_uid("job");
  assign.mutable_ref()->set_attempt(1);
  assign.mutable_ref()->set_fence(7);
  for (const int rank : {2, 3}) {
    v1::RankAssignment* a = assign.add_ranks();
    a->set_rank(rank);
    a->set_slot(rank - 2);
  }
  SetProto(assign.mutable_prepare_timeout(), Seconds(300));
  return assign;
}

class TaskTest : public ::testing::Test {
 protected:
  TaskTest() : task(TwoRanks(), {.worker_id = "w"}, Seconds(0)) {}

  void MakeRunning() {
    for (const int rank : {2, 3}) {
      task.Spawned(rank);
      task.Ready(rank, v1::RankReady());
    }
    task.Start(v1::StartTraining(), Seconds(1));
    task.TakeActions();
  }
  std::vector<TaskAction> At(absl::Duration now) {
    task.Tick(kWall, now);
    return task.TakeActions();
  }
  static int Count(const std::vector<TaskAction>& actions, TaskAction::Kind kind) {
    int count = 0;
    for (const TaskAction& action : actions) count += action.kind == kind;
    return count;
  }
  const v1::RankStatus& rank(int index) { return task.report().ranks(index); }

  Task task;
};

TEST_F(TaskTest, ABrokenDeviceIsTheCauseWhateverTheRankSays) {
  MakeRunning();
  v1::RankFailure own;
  own.set_failure_class(v1::FAILURE_CLASS_USER);
  own.set_reason("CUDA_ERROR");
  own.set_message("launch failed");
  task.Failure(2, own, kWall + Seconds(1));
  task.DeviceFailed(2, "GPU_XID", "XID 79", kWall + Seconds(3), Seconds(3));
  EXPECT_EQ(Count(At(Seconds(3)), TaskAction::Kind::kTerminate), 2) << "its peer goes too";
  task.Ended(2, {.exit_code = 70, .signal = {}}, {}, kWall + Seconds(4), Seconds(4));
  EXPECT_EQ(rank(0).exit().reason(), "GPU_XID");
  EXPECT_EQ(rank(0).exit().failure_class(), v1::FAILURE_CLASS_INFRA);
  EXPECT_EQ(rank(0).exit().message(), "XID 79; the rank said: launch failed");
  EXPECT_EQ(rank(0).exit().time().seconds(), 1) << "the first sign of it";

  // Known only after the end, but before the slot is free.
  task.Ended(3, {.exit_code = 70, .signal = {}}, {}, kWall + Seconds(5), Seconds(5));
  EXPECT_EQ(rank(1).exit().reason(), "PEER_FAILED");
  task.Emptied(3);
  EXPECT_NE(rank(1).state(), v1::TASK_STATE_EXITED);
  const uint64_t before = task.report().sequence();
  task.DeviceFailed(3, "GPU_XID", "XID 48", kWall + Seconds(6), Seconds(6));
  EXPECT_EQ(rank(1).exit().reason(), "GPU_XID");
  EXPECT_EQ(rank(1).exit().exit_code(), 70);
  EXPECT_GT(task.report().sequence(), before);
  task.DeviceFailed(3, "GPU_UNHEALTHY", "the GPU does not answer", kWall + Seconds(6), Seconds(6));
  EXPECT_EQ(rank(1).exit().reason(), "GPU_XID") << "the silence came of the XID";
  task.Gone(3);
  EXPECT_EQ(rank(1).state(), v1::TASK_STATE_EXITED);
  task.DeviceFailed(3, "GPU_XID", "again", kWall + Seconds(7), Seconds(7));
  EXPECT_THAT(rank(1).exit().message(), ::testing::StartsWith("XID 48"));
}

TEST_F(TaskTest, ABrokenDeviceChangesNothingForWorkThatIsDoneOrStopped) {
  MakeRunning();
  task.Result(2, v1::JobResult());
  task.Ended(2, {.exit_code = 0, .signal = {}}, {}, kWall, Seconds(2));
  task.DeviceFailed(2, "GPU_XID", "XID 79", kWall, Seconds(3));
  EXPECT_EQ(rank(0).exit().reason(), "COMPLETED");
  task.Stop(v1::STOP_REASON_CANCEL, false, Seconds(60), Seconds(4));
  task.DeviceFailed(3, "GPU_XID", "XID 79", kWall, Seconds(5));
  task.Ended(3, {.exit_code = {}, .signal = SIGKILL}, {}, kWall, Seconds(6));
  EXPECT_EQ(rank(1).exit().failure_class(), v1::FAILURE_CLASS_CONTROL);
}

// After its processes have gone, a rank whose slot is not free yet has nothing that could be killed, or be stuck.
TEST_F(TaskTest, AnEmptyGroupIsNotKilledWhileItsSlotWaits) {
  MakeRunning();
  task.Ended(2, {.exit_code = 1, .signal = {}}, {}, kWall, Seconds(2));
  task.Emptied(2);
  task.Ended(3, {.exit_code = 1, .signal = {}}, {}, kWall, Seconds(2));
  task.Gone(3);
  task.TakeActions();
  EXPECT_TRUE(At(Seconds(500)).empty());
  EXPECT_TRUE(task.stuck_slots().empty());
  EXPECT_FALSE(task.finished());
  task.Gone(2);
  EXPECT_TRUE(task.finished());
}

TEST_F(TaskTest, RanksThatAreNotStartedEndWithTheOneThatCannotBe) {
  task.SpawnFailed(3, absl::UnavailableError("no GPU"), kWall, Seconds(1), "GPU_UNHEALTHY");
  EXPECT_EQ(rank(1).exit().reason(), "GPU_UNHEALTHY");
  EXPECT_EQ(rank(1).exit().failure_class(), v1::FAILURE_CLASS_INFRA);
  task.NotStarted(2, kWall);
  EXPECT_EQ(rank(0).exit().reason(), "PEER_FAILED");
  EXPECT_EQ(rank(0).exit().failure_class(), v1::FAILURE_CLASS_CONTROL);
  EXPECT_TRUE(task.finished());
}

TEST_F(TaskTest, HasTheLeastAdvancedStateOfItsRanks) {
  EXPECT_EQ(task.state(), v1::TASK_STATE_ASSIGNED);
  task.Spawned(2);
  EXPECT_EQ(task.state(), v1::TASK_STATE_ASSIGNED);
  task.Spawned(3);
  EXPECT_EQ(task.state(), v1::TASK_STATE_PREPARING);
  task.Ready(2, v1::RankReady());
  EXPECT_EQ(task.state(), v1::TASK_STATE_PREPARING);
  task.Ready(3, v1::RankReady());
  EXPECT_EQ(task.state(), v1::TASK_STATE_READY);
}

TEST_F(TaskTest, StartsOnceAndOnlyWhenAllAreReady) {
  task.Spawned(2);
  task.Spawned(3);
  task.Ready(2, v1::RankReady());
  task.Start(v1::StartTraining(), Seconds(1));
  EXPECT_TRUE(task.TakeActions().empty());
  task.Ready(3, v1::RankReady());
  task.Start(v1::StartTraining(), Seconds(1));
  EXPECT_EQ(task.TakeActions().size(), 2u);
  EXPECT_EQ(task.state(), v1::TASK_STATE_RUNNING);
  task.Start(v1::StartTraining(), Seconds(1));
  EXPECT_TRUE(task.TakeActions().empty());
}

// CP-29: message, then SIGTERM, then SIGKILL, then EXITED only when the groups are empty.
TEST_F(TaskTest, StopWithCheckpointGoesThroughTheStopOrder) {
  MakeRunning();
  task.Stop(v1::STOP_REASON_SUSPEND, true, Seconds(60), Seconds(100));
  std::vector<TaskAction> actions = task.TakeActions();
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_TRUE(actions[0].command.stop().checkpoint());
  EXPECT_EQ(actions[0].command.stop().deadline().seconds(), 45);
  EXPECT_EQ(task.state(), v1::TASK_STATE_STOPPING);
  EXPECT_TRUE(At(Seconds(144)).empty());
  EXPECT_EQ(Count(At(Seconds(145)), TaskAction::Kind::kTerminate), 2);
  EXPECT_TRUE(At(Seconds(159)).empty());
  task.Ended(2, {.exit_code = 0, .signal = {}}, {}, kWall, Seconds(150));
  EXPECT_EQ(Count(At(Seconds(160)), TaskAction::Kind::kKill), 2);
  task.Gone(2);
  EXPECT_EQ(task.state(), v1::TASK_STATE_STOPPING);
  task.Ended(3, {.exit_code = {}, .signal = SIGKILL}, {}, kWall, Seconds(161));
  EXPECT_FALSE(task.finished());
  task.Gone(3);
  EXPECT_TRUE(task.finished());
  EXPECT_EQ(rank(0).exit().failure_class(), v1::FAILURE_CLASS_CONTROL);
  EXPECT_EQ(rank(1).exit().failure_class(), v1::FAILURE_CLASS_CONTROL);
}

TEST_F(TaskTest, StopBeforeTheStartMakesNoCheckpointAndIsQuick) {
  task.Spawned(2);
  task.Spawned(3);
  task.Stop(v1::STOP_REASON_CANCEL, true, Seconds(60), Seconds(10));
  EXPECT_FALSE(task.TakeActions()[0].command.stop().checkpoint());
  EXPECT_EQ(Count(At(Seconds(10)), TaskAction::Kind::kTerminate), 2);
  EXPECT_EQ(Count(At(Seconds(13)), TaskAction::Kind::kKill), 2);
}

TEST_F(TaskTest, ASecondStopTightensAndNeverLoosens) {
  MakeRunning();
  task.Stop(v1::STOP_REASON_SUSPEND, true, Seconds(60), Seconds(100));
  task.TakeActions();
  task.Stop(v1::STOP_REASON_SUSPEND, true, Seconds(600), Seconds(101));
  EXPECT_TRUE(task.TakeActions().empty());
  EXPECT_EQ(Count(At(Seconds(145)), TaskAction::Kind::kTerminate), 2);
  task.Stop(v1::STOP_REASON_CANCEL, false, Seconds(60), Seconds(150));
  EXPECT_EQ(task.TakeActions().size(), 2u);
  EXPECT_EQ(task.stop_reason(), v1::STOP_REASON_CANCEL);
  EXPECT_EQ(Count(At(Seconds(153)), TaskAction::Kind::kKill), 2);
}

// CP-30. The cause keeps its class; those stopped for it are CONTROL.
TEST_F(TaskTest, OneBadEndStopsTheOthersAtOnce) {
  MakeRunning();
  task.Ended(3, {.exit_code = {}, .signal = SIGKILL}, {"last words"}, kWall, Seconds(50));
  task.Gone(3);
  const std::vector<TaskAction> actions = task.TakeActions();
  ASSERT_EQ(actions.size(), 1u);
  EXPECT_EQ(actions[0].rank, 2);
  EXPECT_EQ(actions[0].command.stop().reason(), v1::STOP_REASON_PEER_FAILED);
  task.Ended(2, {.exit_code = 75, .signal = {}}, {}, kWall, Seconds(51));
  task.Gone(2);
  EXPECT_EQ(rank(1).exit().failure_class(), v1::FAILURE_CLASS_INFRA);
  EXPECT_EQ(rank(1).exit().reason(), "RANK_KILLED");
  EXPECT_EQ(rank(1).exit().last_log_lines(0), "last words");
  EXPECT_EQ(rank(0).exit().reason(), "PEER_FAILED");
  EXPECT_EQ(rank(0).exit().failure_class(), v1::FAILURE_CLASS_CONTROL);
}

TEST_F(TaskTest, SuccessOfOneDoesNotStopTheOther) {
  MakeRunning();
  task.Result(2, v1::JobResult());
  task.Ended(2, {.exit_code = 0, .signal = {}}, {}, kWall, Seconds(50));
  task.Gone(2);
  EXPECT_TRUE(task.TakeActions().empty());
  EXPECT_TRUE(rank(0).succeeded());
  EXPECT_EQ(task.state(), v1::TASK_STATE_RUNNING);
}

TEST_F(TaskTest, PrepareTimeoutAndHangAreInfraFailuresWithTheirName) {
  task.Spawned(2);
  task.Spawned(3);
  task.Ready(2, v1::RankReady());
  EXPECT_TRUE(At(Seconds(299)).empty());
  At(Seconds(300));
  task.Ended(3, {.exit_code = {}, .signal = SIGKILL}, {}, kWall, Seconds(303));
  EXPECT_EQ(rank(1).exit().reason(), "PREPARE_TIMEOUT");
  EXPECT_EQ(rank(1).exit().failure_class(), v1::FAILURE_CLASS_INFRA);

  Task hung(TwoRanks(), {.worker_id = "w"}, Seconds(0));
  for (const int r : {2, 3}) {
    hung.Spawned(r);
    hung.Ready(r, v1::RankReady());
  }
  hung.Start(v1::StartTraining(), Seconds(0));
  v1::RankProgress progress;
  progress.set_section("train");
  for (int step = 1; step <= 10; ++step) {
    progress.set_step(step);
    hung.Progress(2, progress, Seconds(step));
    hung.Progress(3, progress, Seconds(step));
  }
  progress.set_step(11);
  hung.Progress(2, progress, Seconds(60));
  hung.Tick(kWall, Seconds(71));
  hung.Ended(2, {.exit_code = 0, .signal = {}}, {}, kWall, Seconds(72));
  hung.Ended(3, {.exit_code = {}, .signal = SIGKILL}, {}, kWall, Seconds(74));
  EXPECT_EQ(hung.report().ranks(1).exit().reason(), "HANG");
  EXPECT_EQ(hung.report().ranks(1).exit().failure_class(), v1::FAILURE_CLASS_INFRA);
  EXPECT_EQ(hung.report().ranks(0).exit().reason(), "PEER_FAILED");
}

TEST_F(TaskTest, WhatCannotBeKilledMakesTheSlotUnhealthyUntilItIsGone) {
  MakeRunning();
  task.Stop(v1::STOP_REASON_CANCEL, false, Seconds(1), Seconds(100));
  At(Seconds(101));
  task.Ended(2, {.exit_code = 0, .signal = {}}, {}, kWall, Seconds(101));
  task.Gone(2);
  At(Seconds(160));
  EXPECT_TRUE(task.stuck_slots().empty());
  At(Seconds(161));
  EXPECT_THAT(task.stuck_slots(), ::testing::ElementsAre(1));
  EXPECT_EQ(task.state(), v1::TASK_STATE_UNKNOWN);
  task.Gone(3);
  EXPECT_TRUE(task.finished());
}

TEST_F(TaskTest, TheRunnersOwnAccountComesBeforeWhatItsEndLooksLike) {
  MakeRunning();
  v1::RankFailure failure;
  failure.set_failure_class(v1::FAILURE_CLASS_USER);
  failure.set_reason("NAN_LOSS");
  task.Failure(2, failure, kWall + Seconds(5));
  task.Ended(2, {.exit_code = 70, .signal = {}}, {}, kWall + Seconds(9), Seconds(9));
  EXPECT_EQ(rank(0).exit().reason(), "NAN_LOSS");
  EXPECT_EQ(rank(0).exit().time().seconds(), 5);
}

TEST_F(TaskTest, SequenceGrowsWithEachChange) {
  uint64_t last = task.report().sequence();
  const auto grew = [&] { return task.report().sequence() > std::exchange(last, task.report().sequence()); };
  task.Spawned(2);
  EXPECT_TRUE(grew());
  task.Ready(2, v1::RankReady());
  EXPECT_TRUE(grew());
  At(Seconds(1));
  EXPECT_FALSE(grew());
}

TEST_F(TaskTest, ARecordOfAnEarlierDaemonIsOver) {
  MakeRunning();
  task.Result(2, v1::JobResult());
  task.Ended(2, {.exit_code = 0, .signal = {}}, {}, kWall, Seconds(5));
  task.Gone(2);
  Task taken(task.report(), {.worker_id = "w"}, kWall);
  EXPECT_TRUE(taken.finished());
  EXPECT_TRUE(taken.report().ranks(0).succeeded());
  EXPECT_EQ(taken.report().ranks(1).exit().reason(), "DAEMON_RESTARTED");
  EXPECT_EQ(taken.report().ranks(1).exit().failure_class(), v1::FAILURE_CLASS_INFRA);
  EXPECT_GT(taken.report().sequence(), task.report().sequence());
}

}  // namespace
}  // namespace trainyard::daemon
