// Jobs with training.shard through the files: checkpoints, imports and exports beside those of jobs without.
#include <functional>
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
#include "worker/train/testing/tiny_dataset.h"

namespace trainyard::jobs {
namespace {

using spec::Shard;

constexpr int kRanks = 2;

class ShardedJobTest : public ::testing::TestWithParam<spec::FloatType> {
 protected:
  spec::JobOptions OptionsOf(Shard shard) const {
    spec::JobOptions job = TinyLanguageModelJob(data_.path());
    job.model.dtype = GetParam();
    if (GetParam() == spec::FloatType::kBf16) job.training.linear.scheme = spec::LinearBf16{};
    spec::AdamWOptions adamw;
    adamw.first_moment = spec::MomentType::kE4M3;
    adamw.second_moment = spec::MomentType::kBf16;
    job.training.optimizer = adamw;
    job.training.shard = shard;
    return job;
  }

  // `steps` units on each rank after `begin`, which prepares the job's state, then `end`.
  std::vector<double> RunJob(const spec::JobOptions& options, const std::string& attempt, int steps,
                             const std::function<void(Job&, int rank)>& begin,
                             const std::function<void(Job&, int rank, comm::Communicator*)>& end) {
    auto communicators = comm::MakeLocalCommunicators(kRanks), background = comm::MakeLocalCommunicators(kRanks);
    std::vector<std::vector<double>> losses(kRanks);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < kRanks; ++rank) {
      threads.emplace_back([&, rank] {
        const auto r = static_cast<size_t>(rank);
        JobRank own(options, attempt, rank, kRanks, communicators[r].get());
        TY_CHECK_OK(own.job->Prepare(own.context));
        begin(*own.job, rank);
        for (const UnitResult& unit : own.Units(steps)) {
          losses[r].push_back(unit.metrics.at("loss"));
          losses[r].push_back(unit.metrics.at("gradient_norm"));
          EXPECT_EQ(unit.metrics.count("gather_bytes"), options.training.shard == Shard::kNone ? 0u : 1u);
          EXPECT_NEAR(unit.metrics.at("compression_ratio"), 1, 0.05);
        }
        end(*own.job, rank, background[r].get());
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(losses[0], losses[1]);
    return losses[0];
  }

  static void Start(Job& job, int) { TY_CHECK_OK(job.Initialize()); }
  // Exports into the attempt's folder.
  static void End(Job& job, int, comm::Communicator*) { TY_CHECK_OK(job.Finish()); }

  // The losses and norms of the steps before and after a checkpoint in files, which one job writes and another reads.
  std::vector<double> RunInTwo(Shard first, Shard second, const std::string& attempt) {
    TempDir root;
    v1::CheckpointManifest committed;
    const auto save = [&](Job& job, int, comm::Communicator* background) {
      ckpt::CheckpointerOptions checkpoint;
      checkpoint.job_root = root.path();
      checkpoint.attempt = checkpoint.fence = 1;
      const auto checkpointer =
          ckpt::Checkpointer::Create(checkpoint, background, [&](const v1::CheckpointManifest& manifest) {
            committed = manifest;
            return absl::OkStatus();
          });
      TY_CHECK_OK(checkpointer->Snapshot(3, [&](ckpt::CheckpointWriter& writer) { return job.Save(writer); }));
      TY_CHECK_OK(checkpointer->Wait().status);
    };
    std::vector<double> losses = RunJob(OptionsOf(first), attempt, 3, Start, save);
    const auto restore = [&](Job& job, int rank) {
      absl::StatusOr<std::unique_ptr<ckpt::CheckpointReader>> reader =
          ckpt::CheckpointReader::Open(root.path(), committed, rank);
      TY_CHECK_OK(reader);
      TY_CHECK_OK(job.Restore(**reader));
    };
    const std::vector<double> rest = RunJob(OptionsOf(second), attempt, 3, restore, End);
    losses.insert(losses.end(), rest.begin(), rest.end());
    return losses;
  }

  static std::string ModelOf(const TempDir& attempt) {
    absl::StatusOr<std::string> bytes = ReadFile(attempt.Join("model/model.safetensors"));
    TY_CHECK_OK(bytes);
    return *std::move(bytes);
  }

  const train::testing::TinyDataset data_;
};

TEST_P(ShardedJobTest, ResumesAndExportsWithEqualBits) {
  TempDir undisturbed;
  const std::vector<double> expected = RunJob(OptionsOf(Shard::kNone), undisturbed.path(), 6, Start, End);
  const std::string model = ModelOf(undisturbed);
  for (const auto& [first, second] : {std::pair{Shard::kZero1, Shard::kZero1},
                                      {Shard::kGrads, Shard::kGrads},
                                      {Shard::kNone, Shard::kZero1},
                                      {Shard::kGrads, Shard::kNone}}) {
    TempDir attempt;
    EXPECT_EQ(RunInTwo(first, second, attempt.path()), expected);
    EXPECT_TRUE(ModelOf(attempt) == model);
  }
}

TEST_P(ShardedJobTest, StartsFromAModelWithEqualBits) {
  TempDir first;
  RunJob(OptionsOf(Shard::kNone), first.path(), 1, Start, End);
  std::vector<double> expected;
  for (const Shard shard : {Shard::kNone, Shard::kZero1, Shard::kGrads}) {
    TempDir attempt;
    spec::JobOptions job = OptionsOf(shard);
    job.model.source = spec::PathModel{first.Join("model"), false};
    const std::vector<double> losses = RunJob(job, attempt.path(), 2, Start, [](Job&, int, comm::Communicator*) {});
    if (shard == Shard::kNone) expected = losses;
    EXPECT_EQ(losses, expected);
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, ShardedJobTest, ::testing::Values(spec::FloatType::kFp32, spec::FloatType::kBf16));

}  // namespace
}  // namespace trainyard::jobs
