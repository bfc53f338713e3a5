#include "coordinator/store/sqlite_store.h"

#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"

namespace trainyard::coordinator {
namespace {

using ::testing::HasSubstr;

JobRecord Record(const std::string& uid, v1::JobState state, uint64_t revision = 1) {
  JobRecord record;
  record.mutable_job()->set_uid(uid);
  record.mutable_job()->set_namespace_("default");
  record.mutable_job()->set_name("name-of-" + uid);
  record.mutable_job()->set_state(state);
  record.set_revision(revision);
  return record;
}

Write Event(uint64_t revision, const std::string& uid) {
  auto job = std::make_shared<v1::Job>();
  job->set_uid(uid);
  job->set_name(std::string(100, 'x'));
  return PutEvent{revision, std::move(job)};
}

class SqliteStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { Open({.directory = dir_.path()}); }

  void Open(const SqliteOptions& options) {
    store_ = nullptr;
    auto store = OpenSqliteStore(options);
    TY_CHECK_OK(store);
    store_ = *std::move(store);
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(SqliteStoreTest, WhatWasCommittedIsThereAfterReopening) {
  WorkerRecord worker;
  worker.set_worker_id("a");
  RequestRecord request;
  request.set_namespace_("default");
  request.set_request_id("r");
  request.set_method("Submit");
  ASSERT_OK(store_->Commit(
      {PutJob{Record("u", v1::JOB_STATE_QUEUED)}, PutWorker{worker}, PutRequest{request}, PutFence{7}, Event(1, "u")}));
  ASSERT_OK_AND_ASSIGN(const Records before, store_->Load());
  Open({.directory = dir_.path()});
  ASSERT_OK_AND_ASSIGN(const Records after, store_->Load());
  ASSERT_EQ(after.jobs.size(), 1u);
  EXPECT_EQ(after.jobs[0].job().uid(), "u");
  EXPECT_EQ(after.workers.size(), 1u);
  EXPECT_EQ(after.requests.size(), 1u);
  EXPECT_EQ(after.next_fence, 7u);
  EXPECT_EQ(after.revision, 1u);
  EXPECT_EQ(after.leader_epoch, before.leader_epoch + 1);
}

// I15: what a process was told is committed survives its SIGKILL; what it was not told may be there or not.
TEST_F(SqliteStoreTest, AcknowledgedCommitsSurviveSigkill) {
  store_ = nullptr;
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const pid_t child = fork();
  if (child == 0) {
    auto store = OpenSqliteStore({.directory = dir_.path()});
    if (!store.ok()) _exit(1);
    for (uint64_t i = 1;; ++i) {
      if (!(*store)->Commit({PutJob{Record(absl::StrCat("u", i), v1::JOB_STATE_QUEUED)}, Event(i, "u")}).ok()) {
        _exit(2);
      }
      if (write(pipe_fds[1], "x", 1) != 1) _exit(3);
    }
  }
  char byte;
  for (int i = 0; i < 50; ++i) ASSERT_EQ(read(pipe_fds[0], &byte, 1), 1);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(pipe_fds[1]);
  uint64_t acknowledged = 50;
  while (read(pipe_fds[0], &byte, 1) == 1) ++acknowledged;
  close(pipe_fds[0]);
  Open({.directory = dir_.path()});
  ASSERT_OK_AND_ASSIGN(const Records records, store_->Load());
  EXPECT_GE(records.jobs.size(), acknowledged);
  EXPECT_LE(records.jobs.size(), acknowledged + 1);
  EXPECT_EQ(records.revision, records.jobs.size());
}

TEST_F(SqliteStoreTest, FailedCommitLeavesNothing) {
  ASSERT_OK(store_->Commit({PutJob{Record("u", v1::JOB_STATE_QUEUED)}, OpenAttempt{"u", 1, 1}}));
  EXPECT_THAT(store_->Commit({PutJob{Record("v", v1::JOB_STATE_QUEUED)}, OpenAttempt{"u", 2, 2}}),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("attempts")));
  ASSERT_OK_AND_ASSIGN(const Records records, store_->Load());
  EXPECT_EQ(records.jobs.size(), 1u);
  EXPECT_OK(store_->Commit({CloseAttempt{"u", 1}, OpenAttempt{"u", 2, 2}}));
}

// CP-57: each of these is forbidden by the database itself.
TEST_F(SqliteStoreTest, RulesOfTheDatabaseHold) {
  ASSERT_OK(store_->Commit({PutJob{Record("u", v1::JOB_STATE_QUEUED)}, PutJob{Record("v", v1::JOB_STATE_QUEUED)},
                            OpenAttempt{"u", 1, 5}, HoldSlot{"a", 0, "u", 5}}));
  const auto refused = [&](std::vector<Write> writes) {
    EXPECT_EQ(store_->Commit(writes).code(), absl::StatusCode::kDataLoss);
  };
  refused({HoldSlot{"a", 0, "v", 6}});                           // slot twice
  refused({OpenAttempt{"v", 1, 5}});                             // fence twice
  refused({OpenAttempt{"u", 2, 6}});                             // two live attempts
  refused({PutJob{Record("w", static_cast<v1::JobState>(0))}});  // no such state
  JobRecord namesake = Record("w", v1::JOB_STATE_QUEUED);
  namesake.mutable_job()->set_name("name-of-v");
  refused({PutJob{namesake}});
  RequestRecord request;
  request.set_request_id("r");
  ASSERT_OK(store_->Commit({PutRequest{request}}));
  refused({PutRequest{request}});
  ASSERT_OK(store_->Commit({PutJob{Record("v", v1::JOB_STATE_CANCELLED)}}));
  refused({PutJob{Record("v", v1::JOB_STATE_RUNNING)}});
  JobRecord ahead = Record("u", v1::JOB_STATE_RUNNING);
  ahead.mutable_job()->set_committed_step(10);
  ASSERT_OK(store_->Commit({PutJob{ahead}}));
  ahead.mutable_job()->set_committed_step(9);
  refused({PutJob{ahead}});
  EXPECT_OK(store_->Commit({ReleaseSlot{"a", 0, 5}, HoldSlot{"a", 0, "v", 6}}));
}

GenerationRecord Generation(const std::string& parent, int64_t number) {
  GenerationRecord record;
  record.set_parent_uid(parent);
  record.set_number(number);
  record.set_count(1);
  return record;
}

// I23: one job a place, one place a job, and no job goes before its parent.
TEST_F(SqliteStoreTest, TrialsAreWrittenOnceAndGoWithTheirParent) {
  ASSERT_OK(store_->Commit({PutGeneration{Generation("p", 1)}, PutTrial{"p", 1, 0, "t"},
                            PutJob{Record("p", v1::JOB_STATE_RUNNING)}, PutJob{Record("t", v1::JOB_STATE_QUEUED)},
                            PutJob{Record("other", v1::JOB_STATE_QUEUED)}}));
  const auto refused = [&](std::vector<Write> writes) {
    EXPECT_EQ(store_->Commit(writes).code(), absl::StatusCode::kDataLoss);
  };
  refused({PutGeneration{Generation("p", 1)}});                             // the generation twice
  refused({PutGeneration{Generation("nobody", 1)}});                        // of no job
  refused({PutTrial{"p", 1, 0, "other"}});                                  // a second job at the place
  refused({PutTrial{"p", 1, 1, "t"}});                                      // the job at a second place
  refused({PutTrial{"p", 2, 0, "other"}});                                  // of no generation
  refused({PutTrial{"p", 1, 1, "nobody"}});                                 // no job
  refused({PutJob{Record("t", v1::JOB_STATE_SUCCEEDED)}, DeleteJob{"t"}});  // an outcome lost
  ASSERT_OK(store_->Commit({PutJob{Record("t", v1::JOB_STATE_SUCCEEDED)}}));
  refused({PutJob{Record("t", v1::JOB_STATE_FAILED)}});     // a second outcome
  refused({DeleteJob{"p"}, PutTrial{"p", 1, 1, "other"}});  // of a parent that goes
  Open({.directory = dir_.path()});
  ASSERT_OK_AND_ASSIGN(Records records, store_->Load());
  ASSERT_EQ(records.generations.size(), 1u);
  EXPECT_EQ(records.generations[0].parent_uid(), "p");
  ASSERT_OK(store_->Commit({DeleteJob{"t"}, DeleteJob{"p"}}));
  ASSERT_OK_AND_ASSIGN(records, store_->Load());
  EXPECT_TRUE(records.generations.empty());
  ASSERT_EQ(records.jobs.size(), 1u);
  EXPECT_EQ(records.jobs[0].job().uid(), "other");
}

// A database of the release before trials: without their tables, at version 1.
TEST_F(SqliteStoreTest, DatabaseOfAnOlderReleaseIsUpgraded) {
  ASSERT_OK(store_->Commit({PutJob{Record("p", v1::JOB_STATE_RUNNING)}, PutFence{7}}));
  store_ = nullptr;
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(dir_.Join("coordinator.db").c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db,
                         "DROP TRIGGER held_slots_keep_their_worker; DROP TABLE trials; DROP TABLE generations; "
                         "PRAGMA user_version=1",
                         nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(db);
  for (int start = 0; start < 2; ++start) {
    Open({.directory = dir_.path()});
    ASSERT_OK_AND_ASSIGN(const Records records, store_->Load());
    EXPECT_EQ(records.jobs.size(), 1u);
    EXPECT_EQ(records.next_fence, 7u);
  }
  EXPECT_OK(store_->Commit(
      {PutGeneration{Generation("p", 1)}, PutTrial{"p", 1, 0, "t"}, PutJob{Record("t", v1::JOB_STATE_QUEUED)}}));
}

TEST_F(SqliteStoreTest, OldEventsAreDroppedAndTheRestIsGapless) {
  Open({.directory = dir_.path(), .events_kept = 100});
  for (uint64_t revision = 1; revision <= 250; ++revision) ASSERT_OK(store_->Commit({Event(revision, "u")}));
  uint64_t compacted = 0;
  ASSERT_OK_AND_ASSIGN(const auto events, store_->LoadEvents(&compacted));
  EXPECT_LE(events.size(), 100u);
  EXPECT_GE(events.size(), 89u);
  EXPECT_EQ(events.front().revision, compacted + 1);
  EXPECT_EQ(events.back().revision, 250u);
  EXPECT_EQ(events.size(), 250 - compacted);
}

TEST_F(SqliteStoreTest, MetricsAreThinnedReplacedAndDeletedWithTheirJob) {
  Open({.directory = dir_.path(), .metric_points_kept = 100});
  ASSERT_OK(store_->Commit({PutJob{Record("u", v1::JOB_STATE_RUNNING)}}));
  const auto put = [&](int64_t step, int attempt) {
    PutMetric write{.uid = "u", .point = {}};
    write.point.set_step(step);
    write.point.set_attempt(attempt);
    (*write.point.mutable_values())["loss"] = static_cast<double>(step);
    ASSERT_OK(store_->Commit({write}));
  };
  for (int64_t step = 1; step <= 250; ++step) put(step, 1);
  const auto read = [&](const PointChoice& choice) -> absl::StatusOr<std::vector<v1::MetricPoint>> {
    TY_ASSIGN_OR_RETURN(const StoredPoints stored, store_->ReadMetrics("u", -1));
    return ChoosePoints(stored, choice);
  };
  ASSERT_OK_AND_ASSIGN(auto points, read({}));
  EXPECT_LE(points.size(), 100u);
  EXPECT_GE(points.size(), 50u);
  EXPECT_EQ(points.back().step() % 4, 0);
  put(points.back().step(), 2);
  ASSERT_OK_AND_ASSIGN(points, read({.names = {"loss"}, .max_points = 7}));
  EXPECT_EQ(points.size(), 7u);
  EXPECT_EQ(points.back().attempt(), 2);
  ASSERT_OK_AND_ASSIGN(const StoredPoints after, store_->ReadMetrics("u", points.back().step() - 8));
  EXPECT_EQ(after.size(), 2u);
  ASSERT_OK(store_->Commit({DeleteJob{"u"}}));
  ASSERT_OK_AND_ASSIGN(points, read({}));
  EXPECT_TRUE(points.empty());
}

TEST_F(SqliteStoreTest, DamagedFileIsNotServed) {
  for (int i = 0; i < 50; ++i) {
    ASSERT_OK(store_->Commit({PutJob{Record(absl::StrCat("u", i), v1::JOB_STATE_QUEUED)}}));
  }
  store_ = nullptr;
  const std::string path = dir_.Join("coordinator.db");
  ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(path));
  for (size_t i = 4096; i < bytes.size(); ++i) bytes[i] = static_cast<char>(bytes[i] ^ 0x5A);
  ASSERT_OK(WriteFileAtomic(path, bytes));
  EXPECT_EQ(OpenSqliteStore({.directory = dir_.path()}).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(SqliteStoreTest, SecondStoreOnTheSameFolderIsRefused) {
  EXPECT_THAT(OpenSqliteStore({.directory = dir_.path()}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another coordinator is using")));
}

TEST_F(SqliteStoreTest, ProbeChangesNothing) {
  EXPECT_OK(store_->Probe());
  EXPECT_OK(store_->Probe());
}

}  // namespace
}  // namespace trainyard::coordinator
