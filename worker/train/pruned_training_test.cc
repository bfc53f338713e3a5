// Training a network whose blocks structured pruning has left with shapes of their own.
#include <thread>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/train/testing/tiny_run.h"
#include "worker/train/trainer.h"

namespace trainyard::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TinyTrainerOptions;
using testing::TinyTraining;

// Ragged groups and a KV head without readers, no attention, nothing, no MLP, all as it was.
TrainerOptions PrunedOptions(const spec::OptimizerOptions& optimizer) {
  TrainerOptions options = TinyTrainerOptions(optimizer);
  options.config.layers = 5;
  options.config.blocks = {{3, 2, 32, {1, 1, 1}}, {0, 0, 64, {}}, {}, {3, 2, 0, {0, 0, 1}}, {4, 2, 64, {}}};
  return options;
}

std::vector<spec::OptimizerOptions> Optimizers() {
  spec::AdamWOptions adamw;
  adamw.learning_rate = 0.01;
  spec::EcoOptions eco;  // keeps the blocks' matrices as codes
  eco.learning_rate = 0.01;
  eco.weight_format = spec::EcoOptions::WeightFormat::kE4M3;
  eco.scale_granularity = spec::EcoOptions::Granularity::kRow;
  return {adamw, eco};
}

TEST(PrunedTrainingTest, LearnsWithTheSameBitsForAnyThreadsAndMemoryOptions) {
  testing::TinyDataset dataset;
  for (const spec::OptimizerOptions& optimizer : Optimizers()) {
    TrainerOptions options = PrunedOptions(optimizer);
    options.training.steps = 40;
    options.training.micro_batch = 4;
    const TinyTraining plain(dataset, options);
    const std::vector<double> losses = plain.Steps(40);
    EXPECT_GT(losses.front(), 5.4);
    EXPECT_LT(losses.back(), 3);
    options.threads = 3;
    options.training.recompute = spec::Recompute::kBlock;
    options.training.lm_head_chunks = 2;
    const TinyTraining saving(dataset, options);
    EXPECT_EQ(saving.Steps(40), losses);
    EXPECT_EQ(saving.StateBytes(), plain.StateBytes());
  }
}

TEST(PrunedTrainingTest, ResumedRunEqualsUndisturbedRunBitForBit) {
  testing::TinyDataset dataset;
  for (const spec::OptimizerOptions& optimizer : Optimizers()) {
    const TinyTraining undisturbed(dataset, PrunedOptions(optimizer));
    undisturbed.Steps(6);
    const TinyTraining first(dataset, PrunedOptions(optimizer)), second(dataset, PrunedOptions(optimizer));
    first.Steps(4);
    second.RestoreFrom(first);
    second.Steps(2);
    EXPECT_EQ(second.StateBytes(), undisturbed.StateBytes());
  }
}

// The block that has nothing is a layer without gradients to the exchange.
TEST(PrunedTrainingTest, RanksKeepEqualWeights) {
  testing::TinyDataset dataset;
  std::vector<std::unique_ptr<comm::Communicator>> communicators = comm::MakeLocalCommunicators(2);
  std::vector<std::vector<uint8_t>> states(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      comm::ExchangeOptions exchange;
      exchange.communication.bucket_bytes = 4096;  // about a bucket a layer
      const TinyTraining run(dataset, PrunedOptions(Optimizers()[0]), rank, 2);
      TY_CHECK_OK(run.trainer->Connect(exchange, communicators[static_cast<size_t>(rank)].get()));
      run.Steps(3);
      states[static_cast<size_t>(rank)] = run.StateBytes();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(states[0], states[1]);
}

// Every block's own sizes have to suit the scheme.
TEST(PrunedTrainingTest, ASchemeRefusesTheBlockThatDoesNotSuitIt) {
  TrainerOptions options = PrunedOptions(spec::AdamWOptions());
  options.training.linear.scheme = spec::LinearQuartet();  // groups of 32 along every side
  options.config.head_dim = 32;
  options.config.blocks[4].intermediate = 33;
  EXPECT_THAT(Trainer::Check(options), StatusIs(absl::StatusCode::kInvalidArgument,
                                                AllOf(HasSubstr("layers.4.gate_up"), HasSubstr("is not a multiple"))));
  options.config.blocks[4].intermediate = 32;
  EXPECT_OK(Trainer::Check(options));
  options.config.blocks[0].kv_of_head = {0, 2, 1};
  EXPECT_THAT(Trainer::Check(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("trainyard_blocks[0].kv_of_head[1]: 2")));
}

}  // namespace
}  // namespace trainyard::train
