// The runner's small parts: framing, stop flag, context, faults.
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "base/testing/fake_clock.h"
#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "proto/rpc/error_details.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/runner/fault.h"
#include "worker/runner/inbox.h"
#include "worker/runner/link.h"
#include "worker/runner/rank_context.h"

namespace trainyard::runner {
namespace {

TEST(FrameDecoderTest, CutsMessagesHoweverTheyArrive) {
  std::string bytes;
  for (int i = 0; i < 20; ++i) {
    v1::RunnerReport report;
    report.mutable_progress()->set_step(i);
    report.mutable_progress()->set_section(std::string(static_cast<size_t>(i * 7), 's'));
    bytes += *EncodeFrame(report);
  }
  for (const size_t piece : {size_t{1}, size_t{3}, size_t{64}, bytes.size()}) {
    FrameDecoder decoder;
    int next = 0;
    std::string payload;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      decoder.Append(absl::string_view(bytes).substr(at, piece));
      while (*decoder.Next(&payload)) {
        v1::RunnerReport report;
        ASSERT_TRUE(report.ParseFromString(payload));
        EXPECT_EQ(report.progress().step(), next++);
      }
    }
    EXPECT_EQ(next, 20) << piece;
  }
}

TEST(FrameDecoderTest, ALengthThatCannotBeIsDataLoss) {
  FrameDecoder decoder;
  decoder.Append(absl::string_view("\xFF\xFF\xFF\x7F", 4));
  std::string payload;
  EXPECT_THAT(decoder.Next(&payload), StatusIs(absl::StatusCode::kDataLoss, ::testing::_));
}

TEST(LinkTest, CarriesBothWaysAndTellsWhenTheDaemonGoes) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  UniqueFd daemon(ends[0]);
  StopFlag stop;
  Inbox inbox(&stop);
  std::atomic<bool> closed{false};
  auto link = Link::Start(UniqueFd(ends[1]), {.on_command = [&](v1::RunnerCommand c) { inbox.Put(std::move(c)); },
                                              .on_closed = [&](absl::Status) { closed = true; }});
  v1::RunnerCommand command;
  command.mutable_launch()->set_rank(3);
  const std::string frame = *EncodeFrame(command);
  ASSERT_EQ(write(daemon.get(), frame.data(), frame.size()), static_cast<ssize_t>(frame.size()));
  ASSERT_OK_AND_ASSIGN(const v1::Launch launch, inbox.WaitLaunch(absl::Seconds(10)));
  EXPECT_EQ(launch.rank(), 3);
  v1::RunnerReport report;
  report.mutable_ready()->set_restored_step(7);
  ASSERT_OK(link->Send(report));
  char buffer[256];
  FrameDecoder decoder;
  std::string payload;
  const ssize_t got = read(daemon.get(), buffer, sizeof(buffer));
  decoder.Append(absl::string_view(buffer, static_cast<size_t>(got)));
  ASSERT_TRUE(*decoder.Next(&payload));
  ASSERT_TRUE(report.ParseFromString(payload));
  EXPECT_EQ(report.ready().restored_step(), 7);
  daemon.reset();
  link.reset();
  EXPECT_TRUE(closed);
}

TEST(InboxTest, AStopEndsTheWaitForTheStartAndAtOnceThatForACommit) {
  StopFlag stop;
  Inbox inbox(&stop);
  v1::RunnerCommand command;
  command.mutable_checkpoint_reply()->set_step(5);
  command.mutable_checkpoint_reply()->set_code(9);
  command.mutable_checkpoint_reply()->set_message("STALE_FENCE");
  inbox.Put(command);
  EXPECT_THAT(inbox.WaitCommit(5, absl::Seconds(1)), StatusIs(absl::StatusCode::kFailedPrecondition, "STALE_FENCE"));
  EXPECT_TRUE(absl::IsDeadlineExceeded(inbox.WaitCommit(6, absl::ZeroDuration())));
  command.mutable_stop()->set_checkpoint(true);
  inbox.Put(command);
  EXPECT_TRUE(absl::IsCancelled(inbox.WaitStart().status()));
  // A kind stop still waits for the verdict on its checkpoint.
  EXPECT_TRUE(absl::IsDeadlineExceeded(inbox.WaitCommit(6, absl::ZeroDuration())));
  command.mutable_stop()->set_checkpoint(false);
  inbox.Put(command);
  EXPECT_TRUE(absl::IsCancelled(inbox.WaitCommit(6, absl::Seconds(10))));
}

TEST(StopFlagTest, TheFirstTerminateIsKindTheSecondIsNot) {
  StopFlag stop;
  int aborted = 0;
  stop.OnAbandon([&] { ++aborted; });
  stop.Terminate();
  EXPECT_TRUE(stop.requested());
  EXPECT_FALSE(stop.abandoned());
  stop.Terminate();
  stop.Request(false);
  EXPECT_TRUE(stop.abandoned());
  EXPECT_EQ(aborted, 1);
  stop.OnAbandon([&] { ++aborted; });  // too late: at once
  EXPECT_EQ(aborted, 2);
}

TEST(FaultTest, CodesSayWhoseFaultItIs) {
  EXPECT_EQ(FaultOf(absl::InvalidArgumentError(""), "spec").exit_code, 64);
  EXPECT_EQ(FaultOf(absl::NotFoundError(""), "prepare").exit_code, 65);
  EXPECT_EQ(FaultOf(absl::FailedPreconditionError(""), "train").exit_code, 70);
  EXPECT_EQ(FaultOf(absl::ResourceExhaustedError(""), "train").failure.failure_class(), v1::FAILURE_CLASS_USER);
  const Fault fault = FaultOf(absl::UnavailableError("peer has gone"), "train");
  EXPECT_EQ(fault.exit_code, 75);
  EXPECT_EQ(fault.failure.failure_class(), v1::FAILURE_CLASS_INFRA);
  EXPECT_EQ(fault.failure.message(), "train: peer has gone");
  EXPECT_EQ(FaultOf(ErrorWithReason(absl::StatusCode::kFailedPrecondition, "NAN_LOSS", "m"), "train").failure.reason(),
            "NAN_LOSS");
}

class RankContextTest : public ::testing::Test {
 protected:
  RankContextTest()
      : context(
            {}, &stop, [this](const v1::RunnerReport& report) { reports.push_back(report.progress()); }, &clock) {}
  FakeClock clock;
  StopFlag stop;
  std::vector<v1::RankProgress> reports;
  RankContext context;
};

// CP-70: the categories add up to wall time.
TEST_F(RankContextTest, BooksAllWallTimeToCategories) {
  clock.Advance(absl::Seconds(3));  // prepare
  context.EnterSection("train");
  clock.Advance(absl::Seconds(5));
  context.ReportUnit({.step = 1, .total_steps = 9, .done = false, .metrics = {{"loss", 2.5}}},
                     {{"checkpoint_step", 1}});
  context.EnterSection("checkpoint");
  clock.Advance(absl::Seconds(2));
  context.EnterSection("evaluate");
  clock.Advance(absl::Seconds(1));
  context.EnterSection("train");
  std::map<std::string, double> seconds;
  for (const v1::RankProgress& progress : reports) {
    for (const auto& [category, value] : progress.goodput_seconds()) seconds[category] += value;
  }
  EXPECT_EQ(seconds,
            (std::map<std::string, double>{{"init", 3}, {"productive", 5}, {"checkpoint_save", 2}, {"other", 1}}));
  EXPECT_EQ(reports[1].values().at("step_seconds"), 5);
  EXPECT_EQ(reports[1].values().at("loss"), 2.5);
  EXPECT_EQ(reports[1].values().at("checkpoint_step"), 1);
}

// Steps that an earlier attempt had reached are done again, each unit once; coming up after a failure is recovery.
TEST_F(RankContextTest, BooksWhatIsDoneAgainAsLost) {
  context.SetHistory(/*follows_failure=*/true, /*reached_step=*/12);
  clock.Advance(absl::Seconds(3));
  context.EnterSection("restore");
  clock.Advance(absl::Seconds(1));
  context.EnterSection("connect");
  clock.Advance(absl::Seconds(2));
  context.SetStep(10, 20);
  context.EnterSection("train");
  for (int step = 11; step <= 14; ++step) {
    clock.Advance(absl::Seconds(step));
    context.ReportUnit({.step = step, .total_steps = 20, .done = false, .metrics = {}}, {});
  }
  std::map<std::string, double> seconds;
  for (const v1::RankProgress& progress : reports) {
    for (const auto& [category, value] : progress.goodput_seconds()) seconds[category] += value;
  }
  EXPECT_EQ(seconds,
            (std::map<std::string, double>{
                {"recovery", 3 + 2}, {"checkpoint_restore", 1}, {"lost_progress", 11 + 12}, {"productive", 13 + 14}}));
}

// A planned new attempt (resume, drain) repeats nothing and recovers from nothing.
TEST_F(RankContextTest, AnAttemptAfterAPlannedStopComesUpAsTheFirst) {
  context.SetHistory(/*follows_failure=*/false, /*reached_step=*/10);
  clock.Advance(absl::Seconds(3));
  context.SetStep(10, 20);
  context.EnterSection("train");
  clock.Advance(absl::Seconds(4));
  context.ReportUnit({.step = 11, .total_steps = 20, .done = false, .metrics = {}}, {});
  std::map<std::string, double> seconds;
  for (const v1::RankProgress& progress : reports) {
    for (const auto& [category, value] : progress.goodput_seconds()) seconds[category] += value;
  }
  EXPECT_EQ(seconds, (std::map<std::string, double>{{"init", 3}, {"productive", 4}}));
}

// The watchdog lives on this: polls count in long sections, never in "train".
TEST_F(RankContextTest, PollsAreSignsOfLifeOutsideOfTraining) {
  context.EnterSection("evaluate");
  reports.clear();
  clock.Advance(absl::Milliseconds(500));
  EXPECT_FALSE(context.ShouldStop());
  EXPECT_TRUE(reports.empty());
  clock.Advance(absl::Milliseconds(600));
  context.ShouldStop();
  EXPECT_EQ(reports.size(), 1u);
  context.EnterSection("train");
  reports.clear();
  clock.Advance(absl::Seconds(100));
  context.ShouldStop();
  EXPECT_TRUE(reports.empty());
}

TEST(RankContextAgreementTest, AllRanksHearOfAStopOnOne) {
  auto control = comm::MakeLocalCommunicators(2);
  std::vector<std::thread> threads;
  bool agreed[2] = {false, false};
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      StopFlag stop;
      if (rank == 1) stop.Request(true);
      RankContext context(
          {}, &stop, [](const v1::RunnerReport&) {}, RealClock());
      context.Connected(nullptr, control[static_cast<size_t>(rank)].get());
      agreed[rank] = context.AgreeToStop().value();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(agreed[0] && agreed[1]);
}

}  // namespace
}  // namespace trainyard::runner
