#include "worker/jobs/pretrain_job.h"

#include <filesystem>
#include <thread>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/ckpt/checkpointer.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/jobs/testing/job_rank.h"
#include "worker/jobs/testing/tiny_job.h"
#include "worker/model/hugging_face.h"
#include "worker/train/testing/tiny_dataset.h"

namespace trainyard::jobs {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

spec::JobOptions TinyJob(const std::string& data) {
  spec::JobOptions options = TinyLanguageModelJob(data);
  options.training.evaluation.interval_steps = 3;
  return options;
}

TEST(PretrainJobTest, TrainsEvaluatesExportsAndSamples) {
  train::testing::TinyDataset data;
  TempDir attempt;
  JobRank rank(TinyJob(data.path()), attempt.path());
  ASSERT_OK(rank.job->Prepare(rank.context));
  ASSERT_OK(rank.job->Initialize());
  EXPECT_GT(rank.job->MemoryPlan().at("weights"), 0);
  const std::vector<UnitResult> units = rank.Units(6);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(units[i].step, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(units[i].total_steps, 6);
    EXPECT_EQ(units[i].done, i == 5);
    EXPECT_EQ(units[i].metrics.at("tokens"), 4 * 32);
    EXPECT_GT(units[i].metrics.at("tokens_per_second"), 0);
    EXPECT_GT(units[i].metrics.at("mfu"), 0);
    EXPECT_EQ(units[i].metrics.count("evaluation_loss"), i == 2 ? 1u : 0u);  // the last step's comes with the result
  }
  EXPECT_NEAR(units[0].metrics.at("loss"), std::log(257), 0.2);

  ASSERT_OK_AND_ASSIGN(const v1::JobResult result, rank.job->Finish());
  ASSERT_EQ(result.artifacts_size(), 1);
  EXPECT_EQ(result.artifacts(0).name(), "model");
  EXPECT_EQ(result.artifacts(0).path(), attempt.Join("model"));
  int64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(attempt.Join("model"))) {
    bytes += static_cast<int64_t>(entry.file_size());
  }
  EXPECT_EQ(result.artifacts(0).bytes(), bytes);
  EXPECT_EQ(result.values().at("final_loss"), units[5].metrics.at("loss"));
  EXPECT_EQ(result.values().at("steps"), 6);
  EXPECT_EQ(result.values().at("tokens"), 6 * 4 * 32);
  EXPECT_TRUE(result.values().contains("evaluation_loss"));
  ASSERT_EQ(result.samples_size(), 1);
  EXPECT_THAT(result.samples(0), StartsWith("The yard"));
  EXPECT_THAT(rank.context.sections, ::testing::ElementsAre("evaluate", "train", "evaluate", "export", "sample"));

  // The export knows where documents end, has its tokenizer, and is where another job can start.
  ASSERT_OK_AND_ASSIGN(const model::ModelConfig config, model::ReadConfig(attempt.Join("model")));
  EXPECT_THAT(config.eos_ids, ::testing::ElementsAre(256));
  EXPECT_TRUE(FileExists(attempt.Join("model/tokenizer.json")));
  spec::JobOptions next = TinyJob(data.path());
  next.model.source = spec::PathModel{attempt.Join("model"), false};
  next.data.shuffle_seed = 99;
  JobRank second(next, attempt.path());
  ASSERT_OK(second.job->Prepare(second.context));
  ASSERT_OK(second.job->Initialize());
  EXPECT_LT(second.Units(1)[0].metrics.at("loss"), units[2].metrics.at("loss"));
}

// DCT-AdamW has indices and codes in its state beside floats.
class ResumeTest : public ::testing::TestWithParam<spec::OptimizerOptions> {};

TEST_P(ResumeTest, FromACheckpointEqualsTheUndisturbedRun) {
  train::testing::TinyDataset data;
  spec::JobOptions job = TinyJob(data.path());
  job.training.optimizer = GetParam();
  TempDir root;
  JobRank undisturbed(job, root.path());
  ASSERT_OK(undisturbed.job->Prepare(undisturbed.context));
  ASSERT_OK(undisturbed.job->Initialize());
  const std::vector<UnitResult> expected = undisturbed.Units(6);

  JobRank first(job, root.path());
  ASSERT_OK(first.job->Prepare(first.context));
  ASSERT_OK(first.job->Initialize());
  first.Units(4);
  ckpt::CheckpointerOptions options;
  options.job_root = root.path();
  options.attempt = 1;
  options.fence = 1;
  v1::CheckpointManifest committed;
  const auto commit = [&](const v1::CheckpointManifest& manifest) {
    committed = manifest;
    return absl::OkStatus();
  };
  {
    const std::unique_ptr<ckpt::Checkpointer> checkpointer = ckpt::Checkpointer::Create(options, nullptr, commit);
    ASSERT_OK(checkpointer->Snapshot(4, [&](ckpt::CheckpointWriter& writer) { return first.job->Save(writer); }));
    ASSERT_OK(checkpointer->Wait().status);
  }
  JobRank second(job, root.path());
  ASSERT_OK(second.job->Prepare(second.context));
  ASSERT_OK(second.job->Initialize());
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<ckpt::CheckpointReader> reader,
                       ckpt::CheckpointReader::Open(root.path(), committed, 0));
  ASSERT_OK(second.job->Restore(*reader));
  EXPECT_EQ(second.job->step(), 4);
  const std::vector<UnitResult> rest = second.Units(2);
  for (size_t i = 0; i < 2; ++i) {
    for (const char* name : {"loss", "gradient_norm", "learning_rate", "loss_z_score"}) {
      EXPECT_EQ(rest[i].metrics.at(name), expected[4 + i].metrics.at(name)) << name;
    }
  }

  // Another data set is another run.
  train::testing::TinyDataset other(train::testing::TinyText() + "more");
  JobRank third(TinyJob(other.path()), root.path());
  ASSERT_OK(third.job->Prepare(third.context));
  EXPECT_THAT(third.job->Restore(*reader),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not the data set")));
}

spec::OptimizerOptions DctAdamWOfRankFour() {
  spec::DctAdamWOptions options;
  options.subspace.rank = 4;
  return options;
}
INSTANTIATE_TEST_SUITE_P(Optimizers, ResumeTest, ::testing::Values(spec::AdamWOptions(), DctAdamWOfRankFour()));

TEST(PretrainJobTest, RanksAgreeAndTheFirstHasTheResult) {
  train::testing::TinyDataset data;
  TempDir attempt;
  std::vector<std::unique_ptr<comm::Communicator>> communicators = comm::MakeLocalCommunicators(2);
  std::vector<std::vector<double>> losses(2);
  std::vector<v1::JobResult> results(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      const auto r = static_cast<size_t>(rank);
      JobRank own(TinyJob(data.path()), attempt.path(), rank, 2, communicators[r].get());
      TY_CHECK_OK(own.job->Prepare(own.context));
      TY_CHECK_OK(own.job->Initialize());
      for (const UnitResult& unit : own.Units(6)) {
        losses[r].push_back(unit.metrics.at("loss"));
        EXPECT_NEAR(unit.metrics.at("compression_ratio"), 1, 0.01);
        EXPECT_GE(unit.metrics.at("comm_seconds"), 0);
      }
      absl::StatusOr<v1::JobResult> result = own.job->Finish();
      TY_CHECK_OK(result);
      results[r] = *std::move(result);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(results[0].artifacts_size(), 1);
  EXPECT_EQ(results[0].values().at("tokens"), 2 * 6 * 4 * 32);
  EXPECT_EQ(results[1].artifacts_size(), 0);
}

// What a codec has lost is a rank's own: it goes through the files of the checkpoint, rank by rank.
TEST(PretrainJobTest, QuantizedRanksResumeFromACheckpointWithEqualBits) {
  train::testing::TinyDataset data;
  TempDir root;
  spec::JobOptions options = TinyJob(data.path());
  options.training.evaluation.interval_steps = 0;
  options.communication.codec = spec::MaxminCodec{4, 64};
  options.communication.error_feedback = true;
  options.communication.min_elements = 256;
  options.communication.plan = spec::LgrecoOptions{1.0, 2, 2, 2, 8};
  std::vector<std::vector<double>> expected(2), resumed(2);
  auto data_ranks = comm::MakeLocalCommunicators(2), background = comm::MakeLocalCommunicators(2);
  auto later = comm::MakeLocalCommunicators(2);
  std::vector<std::thread> threads;
  v1::CheckpointManifest committed;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      const auto r = static_cast<size_t>(rank);
      JobRank first(options, root.path(), rank, 2, data_ranks[r].get());
      TY_CHECK_OK(first.job->Prepare(first.context));
      TY_CHECK_OK(first.job->Initialize());
      first.Units(3);
      ckpt::CheckpointerOptions checkpoint;
      checkpoint.job_root = root.path();
      checkpoint.attempt = checkpoint.fence = 1;
      const auto commit = [&](const v1::CheckpointManifest& manifest) {
        committed = manifest;
        return absl::OkStatus();
      };
      {
        const std::unique_ptr<ckpt::Checkpointer> checkpointer =
            ckpt::Checkpointer::Create(checkpoint, background[r].get(), commit);
        TY_CHECK_OK(checkpointer->Snapshot(3, [&](ckpt::CheckpointWriter& writer) { return first.job->Save(writer); }));
        TY_CHECK_OK(checkpointer->Wait().status);
      }
      TY_CHECK_OK(background[r]->Barrier());
      for (const UnitResult& unit : first.Units(3)) {
        expected[r].push_back(unit.metrics.at("loss"));
        EXPECT_GT(unit.metrics.at("compression_ratio"), 2);
        EXPECT_GT(unit.metrics.at("quant_seconds"), 0);
        EXPECT_GT(unit.metrics.at("quant_nmse_mlp"), 0);
        EXPECT_GE(unit.metrics.at("plan_epoch"), 1);
      }

      JobRank second(options, root.path(), rank, 2, later[r].get());
      TY_CHECK_OK(second.job->Prepare(second.context));
      TY_CHECK_OK(second.job->Initialize());
      absl::StatusOr<std::unique_ptr<ckpt::CheckpointReader>> reader =
          ckpt::CheckpointReader::Open(root.path(), committed, rank);
      TY_CHECK_OK(reader);
      TY_CHECK_OK(second.job->Restore(**reader));
      for (const UnitResult& unit : second.Units(3)) resumed[r].push_back(unit.metrics.at("loss"));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(resumed, expected);
  EXPECT_EQ(resumed[0], resumed[1]);
}

TEST(PretrainJobTest, AStopCutsEvaluationShortAndLeavesNoResult) {
  train::testing::TinyDataset data;
  TempDir attempt;
  JobRank rank(TinyJob(data.path()), attempt.path());
  ASSERT_OK(rank.job->Prepare(rank.context));
  ASSERT_OK(rank.job->Initialize());
  rank.context.stops = true;
  EXPECT_EQ(rank.Units(3)[2].metrics.count("evaluation_loss"), 0u);
  EXPECT_THAT(rank.job->Finish(), StatusIs(absl::StatusCode::kCancelled, HasSubstr("asked to stop")));
  EXPECT_FALSE(FileExists(attempt.Join("model")));
}

TEST(PretrainJobTest, SaysWhatIsMissing) {
  TempDir attempt;
  JobRank no_data(TinyJob("/nowhere"), attempt.path());
  EXPECT_THAT(no_data.job->Prepare(no_data.context), StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere")));
  train::testing::TinyDataset data;
  spec::JobOptions options = TinyJob(data.path());
  options.model.source = spec::PathModel{"/no/model", false};
  JobRank no_model(options, attempt.path());
  EXPECT_THAT(no_model.job->Prepare(no_model.context), StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/model")));
}

}  // namespace
}  // namespace trainyard::jobs
