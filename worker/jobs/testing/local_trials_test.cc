#include "worker/jobs/testing/local_trials.h"

#include <atomic>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/comm/communicator.h"

namespace trainyard::jobs {
namespace {

using ::testing::HasSubstr;

// Two units; then the result says the job's seed and the sum of (rank + 1). A spec of 99 steps fails in its second
// unit.
class SeedJob final : public Job {
 public:
  explicit SeedJob(const spec::JobOptions& options) : options_(options) {}
  absl::Status Prepare(JobContext& context) override {
    context_ = &context;
    return WriteFileAtomic(JoinPath(context.place().attempt_dir, absl::StrCat("rank-", context.place().rank)), "here");
  }
  std::map<std::string, int64_t> MemoryPlan() const override { return {}; }
  absl::Status Initialize() override { return absl::OkStatus(); }
  absl::Status Restore(ckpt::CheckpointReader&) override { return absl::OkStatus(); }
  absl::Status Save(ckpt::CheckpointWriter&) override { return absl::OkStatus(); }
  int64_t step() const override { return step_; }
  absl::StatusOr<UnitResult> RunUnit() override {
    if (step_ == 1 && options_.training.steps == 99) return absl::FailedPreconditionError("loss is nan");
    float mine = static_cast<float>(context_->place().rank + 1);
    TY_RETURN_IF_ERROR(context_->communicator()->AllReduceSum(&mine, 1));
    sum_ = mine;
    ++step_;
    return UnitResult{.step = step_, .total_steps = 2, .done = step_ == 2, .metrics = {}};
  }
  absl::StatusOr<v1::JobResult> Finish() override {
    v1::JobResult result;
    (*result.mutable_values())["seed"] = static_cast<double>(*options_.seed);
    (*result.mutable_values())["sum"] = sum_;
    return result;
  }

 private:
  const spec::JobOptions options_;
  JobContext* context_ = nullptr;
  int64_t step_ = 0;
  double sum_ = 0;
};

v1::JobSpec Trial(int steps, int ranks = 1) {
  v1::JobSpec spec;
  spec.mutable_pretrain();
  spec.mutable_model()->set_preset("llama-1m");
  spec.mutable_data()->set_path("data");
  spec.mutable_training()->set_steps(steps);
  spec.mutable_world()->set_min(ranks);
  return spec;
}

class LocalTrialsTest : public ::testing::Test {
 protected:
  LocalTrialsOptions Options(int parallel) {
    return {.base_dir = dir.Join("trials"),
            .parallel = parallel,
            .make_job = [this](const spec::JobOptions& options) -> std::unique_ptr<Job> {
              ++made;
              return std::make_unique<SeedJob>(options);
            },
            .should_stop = [this] { return stops.load(); }};
  }
  v1::TrialGeneration Generation(int count) {
    v1::TrialGeneration generation;
    generation.set_number(1);
    for (int i = 0; i < count; ++i) *generation.add_specs() = Trial(10);
    return generation;
  }

  TempDir dir;
  std::atomic<int> made{0};
  std::atomic<bool> stops{false};
};

TEST_F(LocalTrialsTest, OutcomesAreInOrderToldOnceAndTheSameForAnyParallelism) {
  v1::TrialGeneration generation = Generation(7);
  generation.mutable_specs(3)->set_seed(77);
  *generation.mutable_specs(4) = Trial(10, 3);
  *generation.mutable_specs(5) = Trial(99, 2);
  std::vector<std::string> runs;
  for (const int parallel : {1, 4}) {
    TempDir fresh;
    LocalTrialsOptions options = Options(parallel);
    options.base_dir = fresh.path();
    LocalTrials trials(std::move(options));
    std::multiset<int> told;
    ASSERT_OK_AND_ASSIGN(const auto outcomes, trials.Run(generation, [&](const v1::TrialOutcome& outcome) {
      told.insert(outcome.index());
    }));
    EXPECT_THAT(told, ::testing::ElementsAre(0, 1, 2, 3, 4, 5, 6));
    ASSERT_EQ(outcomes.size(), 7u);
    std::set<double> seeds;
    runs.emplace_back();
    for (size_t i = 0; i < 7; ++i) {
      EXPECT_EQ(outcomes[i].index(), static_cast<int>(i));
      if (i == 5) {
        EXPECT_EQ(outcomes[i].state(), v1::JOB_STATE_FAILED);
        EXPECT_THAT(outcomes[i].exit().message(), HasSubstr("loss is nan"));
        continue;
      }
      EXPECT_EQ(outcomes[i].state(), v1::JOB_STATE_SUCCEEDED) << outcomes[i].exit().message();
      seeds.insert(outcomes[i].result().values().at("seed"));
      absl::StrAppend(&runs.back(), outcomes[i].result().values().at("seed"), " ");
    }
    EXPECT_EQ(seeds.size(), 6u);
    EXPECT_EQ(outcomes[3].result().values().at("seed"), 77);
    EXPECT_EQ(outcomes[4].result().values().at("sum"), 6);  // 1 + 2 + 3
    EXPECT_TRUE(FileExists(fresh.Join("generation-1/trial-4/rank-2")));
  }
  EXPECT_EQ(runs[0], runs[1]);
}

TEST_F(LocalTrialsTest, WhatWasAskedForBeforeIsNotRunAgain) {
  const v1::TrialGeneration generation = Generation(3);
  ASSERT_OK(LocalTrials(Options(1)).Run(generation, nullptr));
  EXPECT_EQ(made, 3);
  // As if it had been killed with one trial not done.
  ASSERT_OK(RemoveTree(dir.Join("trials/generation-1/outcome-1.pb")));
  LocalTrials again(Options(1));
  ASSERT_OK_AND_ASSIGN(const auto outcomes, again.Run(generation, nullptr));
  EXPECT_EQ(again.run_count(), 1);
  EXPECT_EQ(outcomes[1].state(), v1::JOB_STATE_SUCCEEDED);
  EXPECT_THAT(again.Run(Generation(2), nullptr),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("generation 1 was committed with other")));
}

TEST_F(LocalTrialsTest, AWrongSpecRunsNothing) {
  v1::TrialGeneration generation = Generation(3);
  generation.mutable_specs(2)->mutable_training()->set_steps(0);
  LocalTrials trials(Options(1));
  EXPECT_THAT(trials.Run(generation, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("specs[2]: training.steps: 0 not in")));
  EXPECT_FALSE(FileExists(dir.Join("trials/generation-1")));
  ASSERT_OK(trials.Run(Generation(3), nullptr));
}

TEST_F(LocalTrialsTest, AStopLeavesTheRestToTheNextAttempt) {
  const v1::TrialGeneration generation = Generation(4);
  LocalTrials trials(Options(1));
  EXPECT_THAT(trials.Run(generation, [&](const v1::TrialOutcome&) { stops = true; }),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
  EXPECT_LT(trials.run_count(), 4);
  stops = false;
  LocalTrials again(Options(2));
  ASSERT_OK(again.Run(generation, nullptr));
  EXPECT_EQ(again.run_count() + trials.run_count(), 4);
}

}  // namespace
}  // namespace trainyard::jobs
