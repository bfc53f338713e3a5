#include "worker/train/plan.h"

#include "gtest/gtest.h"

namespace trainyard::train {
namespace {

TrainerOptions Options() {
  TrainerOptions options;
  options.config.vocab_size = 100;
  options.config.hidden_size = 16;
  options.config.intermediate_size = 32;
  options.config.layers = 2;
  options.config.q_heads = options.config.kv_heads = 2;
  options.config.head_dim = 8;
  options.config.tied_head = true;
  options.sequence_length = 24;
  options.training.micro_batch = 3;
  options.training.accumulation = 5;
  return options;
}

// Embedding 1600, final norm 16, and two blocks of 2 * 16 + 16 * (48 + 16) + 3 * 16 * 32.
constexpr int64_t kParameters = 1600 + 16 + 2 * (32 + 1024 + 1536);

TEST(PlanTest, CountsParametersTokensAndOperations) {
  const TrainingPlan plan = *PlanTraining(Options(), {}, 4);
  EXPECT_EQ(plan.parameters, kParameters);
  EXPECT_EQ(plan.tokens_per_step, 3 * 5 * 24 * 4);
  EXPECT_DOUBLE_EQ(plan.flops_per_token, 6.0 * (kParameters - 5 * 16) + 6.0 * 2 * 16 * 24);
  EXPECT_DOUBLE_EQ(plan.flops_per_step, plan.flops_per_token * 1440);
}

// Where there is no device, and even in a program that was built without any.
TEST(PlanTest, OfARunOnADeviceIsMadeWithoutOne) {
  TrainerOptions options = Options();
  options.device = kernels::Device::kCuda;
  EXPECT_EQ(PlanTraining(options, {}, 2)->memory, PlanTraining(Options(), {}, 2)->memory);
}

TEST(PlanTest, EachRankSendsTwiceItsShareOfTheOthersGradients) {
  for (const int ranks : {2, 3, 4}) {
    const TrainingPlan plan = *PlanTraining(Options(), {}, ranks);
    EXPECT_EQ(plan.exchange_buckets, 1);
    // 2 (R-1)/R of 4 bytes a parameter, up to a grain of eight elements a bucket.
    EXPECT_NEAR(static_cast<double>(plan.wire_bytes_per_step), 2.0 * (ranks - 1) / ranks * 4 * kParameters,
                4 * 8 * 2 * ranks);
    EXPECT_NEAR(static_cast<double>(plan.memory.at("communication")), 4.0 * kParameters / ranks * (ranks - 1),
                4 * 8 * ranks);
  }
  EXPECT_EQ(PlanTraining(Options(), {}, 1)->wire_bytes_per_step, 0);
  spec::CommunicationOptions small;
  small.bucket_bytes = 1024;
  EXPECT_EQ(PlanTraining(Options(), small, 2)->exchange_buckets, 4);  // every layer is longer than that but the norm
}

TEST(PlanTest, CodecsMakeItSmallerAndFeedbackTakesMemory) {
  spec::CommunicationOptions coded;
  coded.codec = spec::MaxminCodec{4, 64};
  coded.error_feedback = true;
  coded.min_elements = 256;
  const TrainingPlan plan = *PlanTraining(Options(), coded, 4);
  EXPECT_EQ(plan.uncoded_bytes_per_step, PlanTraining(Options(), {}, 4)->wire_bytes_per_step);
  // 4 and 8 bits and the buckets' metadata, of all but the vectors: about 5.
  EXPECT_NEAR(static_cast<double>(plan.uncoded_bytes_per_step) / static_cast<double>(plan.wire_bytes_per_step), 4.4,
              .4);
  EXPECT_EQ(plan.memory.at("exchange_state"), 4 * (kParameters - 5 * 16));
  coded.types = {{"mine", "nothing.*", std::nullopt}};
  EXPECT_EQ(PlanTraining(Options(), coded, 4).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PlanTest, SnapshotHoldsTheStateSharedOutOverRanks) {
  const int64_t state = 3 * 4 * kParameters + 2 * 4 * kZScoreWindow;  // weights, m, v, z-scores
  EXPECT_EQ(PlanTraining(Options(), {}, 1)->memory.at("checkpoint"), state);
  const int64_t half = PlanTraining(Options(), {}, 2)->memory.at("checkpoint");
  EXPECT_GE(half, state / 2);
  EXPECT_LT(half, state / 2 + 4 * 1600);
}

TEST(PlanTest, SumsUp) {
  const TrainingPlan plan = *PlanTraining(Options(), {}, 2);
  int64_t sum = 0;
  for (const auto& [purpose, bytes] : plan.memory) sum += bytes;
  EXPECT_EQ(plan.memory_bytes, sum);
}

}  // namespace
}  // namespace trainyard::train
