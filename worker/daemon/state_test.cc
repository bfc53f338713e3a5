// What survives a restart: fences, identity, task records, the log spool.
#include <sys/stat.h>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/daemon/fences.h"
#include "worker/daemon/identity.h"
#include "worker/daemon/log_spool.h"
#include "worker/daemon/task_record.h"

namespace trainyard::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// I6: also after its own crash.
TEST(FencesTest, RefusesWhatIsSmallerThanAnythingSeenBeforeARestart) {
  TempDir dir;
  {
    ASSERT_OK_AND_ASSIGN(Fences fences, Fences::Open(dir.Join("fences")));
    EXPECT_OK(fences.AdmitEpoch(5));
    EXPECT_OK(fences.AdmitFence(0, 40));
    EXPECT_OK(fences.AdmitFence(1, 41));
  }
  ASSERT_OK_AND_ASSIGN(Fences fences, Fences::Open(dir.Join("fences")));
  EXPECT_EQ(fences.max_fence(), 41u);
  EXPECT_THAT(fences.AdmitEpoch(4), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("4")));
  EXPECT_OK(fences.AdmitEpoch(5));
  EXPECT_THAT(fences.AdmitFence(0, 39), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("slot 0")));
  EXPECT_OK(fences.AdmitFence(0, 40));
  EXPECT_OK(fences.AdmitFence(0, 41));
}

TEST(FencesTest, NamesADamagedFile) {
  TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir.Join("fences"), "epoch 3\n"));
  EXPECT_THAT(Fences::Open(dir.Join("fences")), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("fences")));
}

TEST(IdentityTest, IdStaysCountGrowsIncarnationIsFresh) {
  TempDir dir;
  ASSERT_OK_AND_ASSIGN(const Identity first, NextIdentity(dir.path(), "host"));
  ASSERT_OK_AND_ASSIGN(const Identity second, NextIdentity(dir.path(), "renamed"));
  EXPECT_THAT(first.worker_id, ::testing::StartsWith("host-"));
  EXPECT_EQ(second.worker_id, first.worker_id);
  EXPECT_EQ(second.start_count, first.start_count + 1);
  EXPECT_NE(second.incarnation, first.incarnation);
}

TEST(TaskRecordTest, ComesBackAsSaved) {
  TempDir dir;
  TaskRecord record;
  record.report.mutable_ref()->set_job_uid("u");
  record.report.mutable_ref()->set_attempt(2);
  record.report.set_sequence(9);
  record.processes[1] = {4242, 987654321};
  ASSERT_OK(SaveTaskRecord(dir.path(), record));
  ASSERT_OK(WriteFileAtomic(dir.Join("u-2.abc.tmp"), "cut sh"));
  ASSERT_OK_AND_ASSIGN(const auto records, LoadTaskRecords(dir.path()));
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].report.sequence(), 9u);
  EXPECT_EQ(records[0].processes.at(1).pid, 4242);
  EXPECT_EQ(records[0].processes.at(1).start_ticks, 987654321u);
  RemoveTaskRecord(dir.path(), record.report.ref());
  EXPECT_TRUE(LoadTaskRecords(dir.path())->empty());
}

class LogSpoolTest : public ::testing::Test {
 protected:
  LogSpoolTest() {
    ref.set_job_uid("u");
    ref.set_attempt(1);
    ref.set_fence(3);
  }
  LogSpool Open(int64_t limit = 1 << 20) {
    auto spool =
        LogSpool::Open({.directory = dir.Join("logs"), .limit_bytes = limit, .chunk_bytes = 10, .chunks_in_flight = 2});
    TY_CHECK_OK(spool);
    return *std::move(spool);
  }
  static v1::LogAck AckOf(const v1::LogChunk& chunk) {
    v1::LogAck ack;
    *ack.mutable_ref() = chunk.ref();
    ack.set_rank(chunk.rank());
    ack.set_stream(chunk.stream());
    ack.set_next_offset(chunk.offset() + static_cast<int64_t>(chunk.data().size()));
    return ack;
  }
  // A coordinator that takes all: what it has got of stdout at the end.
  static std::string Upload(LogSpool& spool) {
    std::string got;
    for (int i = 0; i < 1000 && !spool.idle(); ++i) {
      for (const v1::LogChunk& chunk : spool.NextChunks(100)) {
        if (chunk.stream() == "stdout") {
          if (chunk.gap_bytes() > 0) got += "<gap " + std::to_string(chunk.gap_bytes()) + ">";
          got += chunk.data();
        }
        spool.Acked(AckOf(chunk));
      }
    }
    return got;
  }

  TempDir dir;
  v1::AttemptRef ref;
};

TEST_F(LogSpoolTest, DeliversEveryByteAndTheEndAndThenIsIdle) {
  LogSpool spool = Open();
  ASSERT_OK(spool.AddTask(ref, {0}));
  spool.Append(ref, 0, "stdout", "the quick brown fox jumps");
  const std::vector<v1::LogChunk> first = spool.NextChunks(100);
  ASSERT_EQ(first.size(), 2u);  // the window
  EXPECT_EQ(first[0].data(), "the quick ");
  EXPECT_EQ(first[1].offset(), 10);
  spool.Rewind();  // the session broke: nothing was acknowledged
  spool.Append(ref, 0, "stdout", " over");
  for (const char* stream : {"stdout", "stderr"}) spool.End(ref, 0, stream);
  EXPECT_EQ(Upload(spool), "the quick brown fox jumps over");
  EXPECT_TRUE(spool.idle());
  EXPECT_FALSE(FileExists(dir.Join("logs/u/1/pending")));
}

TEST_F(LogSpoolTest, GoesOnWhereTheCoordinatorIsAfterARestart) {
  {
    LogSpool spool = Open();
    ASSERT_OK(spool.AddTask(ref, {0}));
    spool.Append(ref, 0, "stdout", "0123456789abcdefghijklmnopqrst");
  }
  LogSpool spool = Open();
  EXPECT_FALSE(spool.idle());
  const std::vector<v1::LogChunk> chunks = spool.NextChunks(100);
  v1::LogAck ack = AckOf(chunks[0]);
  if (chunks[0].stream() != "stdout") ack = AckOf(chunks[1]);
  ack.set_stream("stdout");
  ack.set_next_offset(25);  // it had more than we thought
  spool.Acked(ack);
  std::string rest;
  for (const v1::LogChunk& chunk : spool.NextChunks(100)) {
    if (chunk.stream() == "stdout") rest += chunk.data();
  }
  EXPECT_EQ(rest, "pqrst");
}

TEST_F(LogSpoolTest, GivesUpTheOldestBytesOverTheLimitAndSaysHowMany) {
  LogSpool spool = Open(64 << 10);
  ASSERT_OK(spool.AddTask(ref, {0}));
  std::string expected;
  for (int i = 0; i < 100; ++i) {
    const std::string line = std::string(1023, static_cast<char>('a' + i % 26)) + "\n";
    spool.Append(ref, 0, "stdout", line);
    expected += line;
  }
  EXPECT_LE(spool.bytes_on_disk(), 64 << 10);
  struct stat facts {};
  ASSERT_EQ(stat(dir.Join("logs/u/1/rank-0.stdout").c_str(), &facts), 0);
  EXPECT_LE(facts.st_blocks * 512, 72 << 10) << "the file system kept what was given up";
  for (const char* stream : {"stdout", "stderr"}) spool.End(ref, 0, stream);
  std::string got;
  int64_t gap = 0;
  while (!spool.idle()) {
    for (const v1::LogChunk& chunk : spool.NextChunks(100)) {
      if (chunk.stream() == "stdout") {
        gap += chunk.gap_bytes();
        got += chunk.data();
      }
      spool.Acked(AckOf(chunk));
    }
  }
  EXPECT_GT(gap, 0);
  EXPECT_EQ(gap, spool.lost_bytes());
  EXPECT_EQ(got, expected.substr(static_cast<size_t>(gap)));
}

TEST_F(LogSpoolTest, DeliveredLogsGoFirstWhenSpaceIsShort) {
  LogSpool spool = Open(1000);
  ASSERT_OK(spool.AddTask(ref, {0}));
  spool.Append(ref, 0, "stdout", std::string(600, 'x'));
  for (const char* stream : {"stdout", "stderr"}) spool.End(ref, 0, stream);
  Upload(spool);
  v1::AttemptRef next = ref;
  next.set_attempt(2);
  ASSERT_OK(spool.AddTask(next, {0}));
  spool.Append(next, 0, "stdout", std::string(600, 'y'));
  EXPECT_EQ(spool.lost_bytes(), 0);
  EXPECT_FALSE(FileExists(dir.Join("logs/u/1")));
  EXPECT_TRUE(FileExists(dir.Join("logs/u/2/rank-0.stdout")));
}

TEST_F(LogSpoolTest, LastLinesAreThoseOfStderr) {
  LogSpool spool = Open();
  ASSERT_OK(spool.AddTask(ref, {0}));
  spool.Append(ref, 0, "stdout", "out\n");
  EXPECT_THAT(spool.LastLines(ref, 0, 2), ElementsAre("out"));
  spool.Append(ref, 0, "stderr", "one\ntwo\nthree");
  EXPECT_THAT(spool.LastLines(ref, 0, 2), ElementsAre("two", "three"));
}

}  // namespace
}  // namespace trainyard::daemon
