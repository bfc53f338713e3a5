// The loop with a made-up job on threads: every rank has its own job, link and stop flag.
#include "worker/runner/loop.h"

#include <atomic>
#include <thread>

#include "base/digest.h"
#include "base/file.h"
#include "base/testing/fake_clock.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/runner/restore.h"

namespace trainyard::runner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// State: one number, the sum over steps of (step * sum over ranks of (rank + 1)).
class SumJob final : public jobs::Job {
 public:
  SumJob(jobs::JobContext* context, int64_t total) : context_(context), total_(total) {}

  absl::Status Prepare(jobs::JobContext& context) override { return absl::OkStatus(); }
  std::map<std::string, int64_t> MemoryPlan() const override { return {}; }
  absl::Status Initialize() override {
    step_ = 0;
    sum_ = 0;
    return absl::OkStatus();
  }
  absl::Status Save(ckpt::CheckpointWriter& writer) override {
    writer.AddTensor("sum", kernels::TensorView(&sum_, kernels::DType::kF32, {1}));
    writer.AddText("step", std::to_string(step_));
    return absl::OkStatus();
  }
  absl::Status Restore(ckpt::CheckpointReader& reader) override {
    TY_RETURN_IF_ERROR(reader.ReadTensor("sum", kernels::TensorView(&sum_, kernels::DType::kF32, {1})));
    step_ = reader.step();
    return absl::OkStatus();
  }
  int64_t step() const override { return step_; }
  absl::StatusOr<jobs::UnitResult> RunUnit() override {
    if (before_unit) before_unit(step_ + 1);
    if (fail_at == step_ + 1) return absl::FailedPreconditionError("loss is nan");
    float mine = static_cast<float>((step_ + 1) * (context_->place().rank + 1));
    TY_RETURN_IF_ERROR(context_->communicator()->AllReduceSum(&mine, 1));
    sum_ += mine;
    ++step_;
    return jobs::UnitResult{.step = step_, .total_steps = total_, .done = step_ >= total_, .metrics = {{"sum", sum_}}};
  }
  absl::StatusOr<v1::JobResult> Finish() override {
    v1::JobResult result;
    (*result.mutable_values())["sum"] = sum_;
    return result;
  }

  std::function<void(int64_t)> before_unit;
  int64_t fail_at = -1;

 private:
  jobs::JobContext* const context_;
  const int64_t total_;
  int64_t step_ = 0;
  float sum_ = 0;
};

struct RankEnd {
  absl::StatusOr<LoopEnd> end = absl::UnknownError("");
  int64_t step = -1;
  std::vector<v1::RunnerReport> reports;
};

struct WorldOptions {
  int ranks = 2;
  int64_t total = 20;
  spec::CheckpointOptions checkpoint;
  std::function<void(int rank, SumJob& job, StopFlag& stop)> prepare = nullptr;
  Clock* clock = RealClock();
  int attempt = 1;
};

class LoopTest : public ::testing::Test {
 protected:
  LoopTest() { options.checkpoint.interval = absl::Hours(1); }

  // Runs all ranks to their ends; resumes from what is committed.
  std::vector<RankEnd> Run() {
    const int ranks = options.ranks;
    auto data = comm::MakeLocalCommunicators(ranks);
    auto control = comm::MakeLocalCommunicators(ranks);
    auto background = comm::MakeLocalCommunicators(ranks);
    std::vector<RankEnd> ends(static_cast<size_t>(ranks));
    std::vector<std::thread> threads;
    const std::vector<v1::CheckpointManifest> known = committed;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        const size_t i = static_cast<size_t>(rank);
        RankEnd& mine = ends[i];
        StopFlag stop;
        jobs::JobPlace place;
        place.rank = rank;
        place.world_size = ranks;
        RankContext context(
            place, &stop, [&](const v1::RunnerReport& report) { mine.reports.push_back(report); }, options.clock);
        context.Connected(data[i].get(), control[i].get());
        SumJob job(&context, options.total);
        if (options.prepare) options.prepare(rank, job, stop);
        const RestoreOptions restore{.job_dir = dir.path(), .committed = known, .rank = rank};
        stop.OnAbandon([&, i] {
          for (auto* c : {data[i].get(), control[i].get(), background[i].get()}) c->Abort();
        });
        TY_CHECK_OK(RestoreNewest(restore, job));
        TY_CHECK_OK(AgreeOnRestore(restore, job, *control[i]));
        restored_step = job.step();
        auto checkpointer = ckpt::Checkpointer::Create({.job_root = dir.path(),
                                                        .job_uid = "job",
                                                        .attempt = options.attempt,
                                                        .fence = 1,
                                                        .spec_digest = "",
                                                        .keep_last = 3,
                                                        .committed = known},
                                                       ranks > 1 ? background[i].get() : nullptr,
                                                       [&](const v1::CheckpointManifest& manifest) {
                                                         if (!commit_status.ok()) return commit_status;
                                                         committed.insert(committed.begin(), manifest);
                                                         return absl::OkStatus();
                                                       });
        if (rank == 0) rank0_checkpointer = checkpointer.get();
        LoopParts parts{.job = &job,
                        .context = &context,
                        .control = control[i].get(),
                        .checkpointer = checkpointer.get(),
                        .stop = &stop,
                        .clock = options.clock,
                        .checkpoint = options.checkpoint,
                        .total_steps = options.total};
        mine.end = RunLoop(parts);
        // As a process that leaves: its peers see it go.
        if (!mine.end.ok()) {
          for (auto* c : {data[i].get(), control[i].get(), background[i].get()}) c->Abort();
        }
        checkpointer.reset();
        mine.step = job.step();
      });
    }
    for (std::thread& thread : threads) thread.join();
    return ends;
  }

  std::vector<int64_t> CommittedSteps() const {
    std::vector<int64_t> steps;
    for (const v1::CheckpointManifest& manifest : committed) steps.push_back(manifest.step());
    return steps;
  }
  static double SumOf(const RankEnd& end) { return end.end->result.values().at("sum"); }

  TempDir dir;
  WorldOptions options;
  std::vector<v1::CheckpointManifest> committed;  // newest first; rank 0's writer thread fills it
  absl::Status commit_status;
  std::atomic<int64_t> restored_step{-1};
  std::atomic<ckpt::Checkpointer*> rank0_checkpointer{nullptr};
};

TEST_F(LoopTest, RunsToTheEndAndReportsEveryStep) {
  const std::vector<RankEnd> ends = Run();
  ASSERT_OK(ends[0].end);
  EXPECT_TRUE(ends[0].end->is_done);
  EXPECT_EQ(SumOf(ends[0]), 630);  // (1 + ... + 20) * (1 + 2)
  int64_t next = 1;
  for (const v1::RunnerReport& report : ends[0].reports) {
    if (report.progress().values().empty()) continue;
    EXPECT_EQ(report.progress().step(), next++);
    EXPECT_TRUE(report.progress().values().contains("step_seconds"));
  }
  EXPECT_EQ(next, 21);
}

// A stop seen by one rank alone, in the middle of a step: all stop after the same step, with a checkpoint of it.
TEST_F(LoopTest, AStopOnOneRankStopsAllAtTheSameStepWithACheckpoint) {
  options.ranks = 3;
  options.prepare = [](int rank, SumJob& job, StopFlag& stop) {
    if (rank == 2) {
      job.before_unit = [&stop](int64_t step) {
        if (step == 7) stop.Terminate();
      };
    }
  };
  for (const RankEnd& end : Run()) {
    ASSERT_OK(end.end);
    EXPECT_FALSE(end.end->is_done);
    EXPECT_EQ(end.step, 7);
  }
  EXPECT_THAT(CommittedSteps(), ElementsAre(7));
}

TEST_F(LoopTest, ResumeGoesOnWhereTheStopWasAndEndsWithTheSameNumber) {
  options.prepare = [](int rank, SumJob& job, StopFlag& stop) {
    job.before_unit = [&stop, rank](int64_t step) {
      if (rank == 0 && step == 7) stop.Request(true);
    };
  };
  Run();
  options.prepare = nullptr;
  options.attempt = 2;
  const std::vector<RankEnd> ends = Run();
  EXPECT_EQ(restored_step, 7);
  EXPECT_EQ(SumOf(ends[0]), 630);
  EXPECT_EQ(SumOf(ends[1]), 630);
}

TEST_F(LoopTest, MakesCheckpointsAtTheGivenStepsAndAtTheEnd) {
  options.checkpoint.interval.reset();
  options.checkpoint.interval_steps = 6;
  Run();
  EXPECT_THAT(CommittedSteps(), ElementsAre(20, 18, 12, 6));
}

// Only rank 0's clock counts: one decision for all.
TEST_F(LoopTest, MakesCheckpointsByTheClockOfRankZero) {
  FakeClock clock;
  options.clock = &clock;
  options.checkpoint.interval = absl::Seconds(10);
  options.prepare = [&](int rank, SumJob& job, StopFlag&) {
    job.before_unit = [this, &clock, rank](int64_t step) {
      if (rank != 0) return;
      // One that is due while another is being written waits its turn; not here.
      while (step == 11 && rank0_checkpointer.load()->busy()) std::this_thread::yield();
      if (step == 4 || step == 11) clock.Advance(absl::Seconds(10));
    };
  };
  Run();
  EXPECT_THAT(CommittedSteps(), ElementsAre(20, 11, 4));
}

TEST_F(LoopTest, NoCheckpointOnStopIfTheSpecSaysSo) {
  options.checkpoint.on_stop = false;
  options.prepare = [](int, SumJob& job, StopFlag& stop) {
    job.before_unit = [&stop](int64_t step) {
      if (step == 3) stop.Request(true);
    };
  };
  ASSERT_OK(Run()[0].end);
  EXPECT_TRUE(committed.empty());
}

// CP-30: a rank that waits in a collective for one that will never come leaves at once, and that is no failure.
TEST_F(LoopTest, AStopAtOnceLeavesACollective) {
  options.prepare = [](int rank, SumJob& job, StopFlag& stop) {
    job.before_unit = [&stop, rank](int64_t step) {
      if (rank == 0 && step == 5) stop.Request(false);
    };
  };
  const std::vector<RankEnd> ends = Run();
  ASSERT_OK(ends[0].end);
  EXPECT_FALSE(ends[0].end->is_done);
  EXPECT_FALSE(ends[1].end.ok());
  EXPECT_TRUE(committed.empty());
}

TEST_F(LoopTest, AFailingJobFailsTheLoopWithItsOwnWords) {
  options.prepare = [](int rank, SumJob& job, StopFlag&) {
    if (rank == 1) job.fail_at = 4;
  };
  const std::vector<RankEnd> ends = Run();
  EXPECT_THAT(ends[1].end, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("nan")));
  EXPECT_FALSE(ends[0].end.ok());
}

TEST_F(LoopTest, ARefusedCommitDoesNotStopTheTraining) {
  commit_status = absl::UnavailableError("the disk is full");
  options.checkpoint.interval.reset();
  options.checkpoint.interval_steps = 6;
  const std::vector<RankEnd> ends = Run();
  ASSERT_OK(ends[0].end);
  EXPECT_TRUE(ends[0].end->is_done);
}

// A job whose last step was committed, and which died exporting, only exports again.
TEST_F(LoopTest, ResumeAfterTheLastStepMakesNoFurtherStep) {
  Run();
  options.attempt = 2;
  const std::vector<RankEnd> ends = Run();
  EXPECT_EQ(restored_step, 20);
  EXPECT_EQ(SumOf(ends[0]), 630);
}

TEST_F(LoopTest, DamagedNewestCheckpointFallsBackToTheOneBefore) {
  options.checkpoint.interval.reset();
  options.checkpoint.interval_steps = 10;
  Run();
  ASSERT_THAT(CommittedSteps(), ElementsAre(20, 10));
  const std::string shard = dir.Join(committed[0].directory() + "/" + committed[0].shards(0).file());
  ASSERT_OK_AND_ASSIGN(const std::string content, ReadFile(shard));
  ASSERT_OK(WriteFileAtomic(shard, content.substr(0, content.size() - 1)));
  options.attempt = 2;
  const std::vector<RankEnd> ends = Run();
  EXPECT_EQ(restored_step, 10);
  EXPECT_EQ(SumOf(ends[0]), 630);
}

TEST_F(LoopTest, NoSoundCheckpointIsDataLossAndNotAFreshStart) {
  v1::CheckpointManifest lost;
  lost.set_step(10);
  lost.set_directory("attempt-1-fence-1/checkpoints/step-00000010");
  jobs::JobPlace place;
  StopFlag stop;
  RankContext context(
      place, &stop, [](const v1::RunnerReport&) {}, RealClock());
  SumJob job(&context, 20);
  EXPECT_THAT(RestoreNewest({.job_dir = dir.path(), .committed = {lost}, .rank = 0}, job),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("1 committed")));
}

TEST(RankContextTest, TellsEachUseOfTheCacheWithTheUnitItWasIn) {
  TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir.Join("file"), "content"));
  cache::FileCache cache(
      {.directory = dir.Join("cache"), .limit_bytes = 1000, .min_free_bytes = 0, .copies_from_same_disk = true});
  StopFlag stop;
  FakeClock clock;
  std::vector<v1::RankProgress> told;
  RankContext context(
      {}, &stop, [&](const v1::RunnerReport& report) { told.push_back(report.progress()); }, &clock);
  context.OfferCache(&cache);
  ASSERT_EQ(context.file_cache(), &cache);
  for (int uses : {1, 2, 0}) {
    for (int i = 0; i < uses; ++i) ASSERT_OK(cache.Get(DigestOf("content"), dir.Join("file")));
    context.ReportUnit({}, {});
  }
  ASSERT_EQ(told.size(), 3u);
  EXPECT_EQ(told[0].values().at("cache_miss_files"), 1);
  EXPECT_EQ(told[0].values().at("cache_miss_bytes"), 7);
  EXPECT_EQ(told[0].values().count("cache_hit_files"), 0u);
  EXPECT_EQ(told[1].values().at("cache_hit_files"), 2);
  EXPECT_EQ(told[1].values().count("cache_miss_files"), 0u);
  EXPECT_EQ(told[2].values().count("cache_hit_files"), 0u);
}

}  // namespace
}  // namespace trainyard::runner
