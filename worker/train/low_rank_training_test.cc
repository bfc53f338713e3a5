// Training with DCT-AdamW and Trion: equal bits where they are promised, memory, and what the methods claim of a small
// model (dct-lowrank.md section 5).
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/train/testing/tiny_run.h"

namespace trainyard::train {
namespace {

using kernels::DType;
using testing::TinyDataset;
using testing::TinyTrainerOptions;
using testing::TinyTraining;
using ErrorFeedback = spec::DctAdamWOptions::ErrorFeedback;

// The embedding and the head, with a side of 257, are above full_rank_min_dim.
spec::DctAdamWOptions DctAdamW(int rank, ErrorFeedback feedback = ErrorFeedback::kInt8) {
  spec::DctAdamWOptions options;
  options.learning_rate = 0.01;
  options.subspace.rank = rank;
  options.subspace.full_rank_min_dim = 200;
  options.beta2 = 0.95;
  options.error_feedback = feedback;
  return options;
}

spec::TrionOptions Trion(int rank) {
  spec::TrionOptions options;
  options.subspace.rank = rank;
  options.subspace.full_rank_min_dim = 200;
  options.adam_learning_rate = 0.01;
  return options;
}

std::vector<spec::OptimizerOptions> Optimizers() {
  spec::DctAdamWOptions gap = DctAdamW(8, ErrorFeedback::kInt4);
  gap.update_gap = 4;
  return {DctAdamW(8), gap, Trion(8)};
}

// Trainer::Initialize zeroes indices and codes too; a basis is not in the state.
TEST(LowRankTraining, ResumedRunEqualsUndisturbedRunBitForBit) {
  const TinyDataset dataset;
  for (const spec::OptimizerOptions& optimizer : Optimizers()) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      TrainerOptions options = TinyTrainerOptions(optimizer);
      options.dtype = dtype;
      TinyTraining undisturbed(dataset, options), first(dataset, options), second(dataset, options);
      undisturbed.Steps(9);
      first.Steps(5);
      second.RestoreFrom(first);
      second.Steps(4);
      EXPECT_EQ(second.StateBytes(), undisturbed.StateBytes());
      undisturbed.trainer->Initialize();  // and a second life begins as the first
      undisturbed.Steps(0);
      TinyTraining fresh(dataset, options);
      EXPECT_EQ(undisturbed.StateBytes(), fresh.StateBytes());
    }
  }
}

TEST(LowRankTraining, SameBitsForAnyThreadsAndMemoryOptions) {
  const TinyDataset dataset;
  for (const spec::OptimizerOptions& optimizer : Optimizers()) {
    TrainerOptions options = TinyTrainerOptions(optimizer);
    TinyTraining plain(dataset, options);
    plain.Steps(4);
    options.threads = 3;
    options.training.recompute = spec::Recompute::kBlock;
    options.training.lm_head_chunks = 2;
    TinyTraining saving(dataset, options);
    saving.Steps(4);
    EXPECT_EQ(saving.StateBytes(), plain.StateBytes());
  }
}

// All state is on all ranks: they choose alike and stay alike.
TEST(LowRankTraining, RanksStayEqual) {
  const TinyDataset dataset;
  for (const spec::OptimizerOptions& optimizer : Optimizers()) {
    const TrainerOptions options = TinyTrainerOptions(optimizer);
    std::vector<std::unique_ptr<comm::Communicator>> communicators = comm::MakeLocalCommunicators(2);
    std::vector<std::unique_ptr<TinyTraining>> runs;
    for (int rank = 0; rank < 2; ++rank) runs.push_back(std::make_unique<TinyTraining>(dataset, options, rank, 2));
    std::vector<std::thread> threads;
    for (size_t rank = 0; rank < 2; ++rank) {
      threads.emplace_back([&, rank] {
        TY_CHECK_OK(runs[rank]->trainer->Connect(comm::ExchangeOptions(), communicators[rank].get()));
        runs[rank]->Steps(5);
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(runs[0]->StateBytes(), runs[1]->StateBytes());
  }
}

}  // namespace
}  // namespace trainyard::train
