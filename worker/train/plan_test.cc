#include "worker/train/plan.h"

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/comm/shard_map.h"
#include "worker/model/parameters.h"
#include "worker/optim/update_pieces.h"

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

// An allocation of that many bytes, as the arena rounds it.
int64_t R(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// Four blocks of bf16 with recomputing, on a device.
TrainerOptions DeviceOptions() {
  TrainerOptions options = Options();
  options.config.layers = 4;
  options.dtype = kernels::DType::kBF16;
  options.training.linear.scheme = spec::LinearBf16{};
  options.training.recompute = spec::Recompute::kBlock;
  options.device = kernels::Device::kCuda;
  return options;
}

// docs/training-memory.md. A byte that goes to the host is not on the device; two buffers come on top.
TEST(PlanTest, OffloadMovesBytesToTheHost) {
  for (const int ranks : {1, 3}) {
    TrainerOptions options = DeviceOptions();
    if (ranks > 1) options.training.shard = spec::Shard::kZero1;
    const TrainingPlan plain = *PlanTraining(options, {}, ranks);
    // Tokens, targets and losses; a snapshot.
    EXPECT_EQ(plain.host_memory.at("activations"), 3 * R(4 * 3 * 24));
    EXPECT_EQ(plain.host_memory.at("checkpoint"), plain.memory.at("checkpoint"));
    EXPECT_EQ(plain.host_memory.count("moments") + plain.host_memory.count("master"), 0u);

    options.training.offload = {.moments = true, .master = true, .residuals = true};
    TrainingPlan plan = *PlanTraining(options, {}, ranks);
    int64_t masters = 0, elements = 0, longest = 0;
    for (const model::Parameter& parameter : model::ListParameters(options.config)) {
      const int64_t size = comm::ShardMap({parameter.size()}, ranks).part(0, 0).size();
      masters += R(4 * size);
      elements += size;
      longest = std::max(longest, size);
    }
    EXPECT_EQ(plan.host_memory.at("master"), masters);
    EXPECT_EQ(plan.host_memory.at("moments"), 2 * masters);
    // Of the inputs of four blocks all but the last's.
    EXPECT_EQ(plan.host_memory.at("activations"), plain.host_memory.at("activations") + 3 * R(2 * 3 * 24 * 16));
    const int64_t piece = std::min(optim::PieceElements(elements), longest);
    EXPECT_LT(piece, longest);
    EXPECT_EQ(plan.memory.at("staging"), 2 * 3 * R(4 * piece));
    EXPECT_EQ(plan.host_memory.count("staging"), 0u);
    int64_t host = 0;
    for (const auto& [purpose, bytes] : plan.host_memory) host += bytes;
    EXPECT_EQ(plan.host_memory_bytes, host);
    plan.memory.erase("staging");
    EXPECT_EQ(plan.memory, plain.memory);
  }
}

TEST(PlanTest, OneChoiceMovesOneThing) {
  TrainerOptions options = DeviceOptions();
  const kernels::MemoryPlan plain = PlanTraining(options, {}, 1)->host_memory;
  const auto moved = [&](const spec::OffloadOptions& offload) {
    options.training.offload = offload;
    const TrainingPlan plan = *PlanTraining(options, {}, 1);
    std::string purposes;
    for (const auto& [purpose, bytes] : plan.host_memory) {
      if (plain.count(purpose) == 0 || plain.at(purpose) != bytes) purposes += purpose + " ";
    }
    return purposes;
  };
  EXPECT_EQ(moved({.moments = true}), "moments ");
  EXPECT_EQ(moved({.master = true}), "master ");
  EXPECT_EQ(moved({.residuals = true}), "activations ");
}

TEST(PlanTest, OffloadIsRefusedWhereItMakesNoSense) {
  using ::testing::HasSubstr;
  const auto refuses = [](const TrainerOptions& options) {
    EXPECT_THAT(PlanTraining(options, {}, 1),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("training.offload: ")));
  };
  TrainerOptions options = DeviceOptions();
  options.training.offload.moments = true;
  options.device = kernels::Device::kCpu;
  refuses(options);
  EXPECT_TRUE(PlanTraining(Options(), {}, 1)->host_memory.empty());
  options = DeviceOptions();
  options.training.optimizer = spec::EcoOptions{};
  options.training.offload = {.master = true};
  refuses(options);
  options = DeviceOptions();
  options.training.recompute = spec::Recompute::kNone;
  options.training.offload = {.residuals = true};
  refuses(options);
}

TEST(PlanTest, SumsUp) {
  const TrainingPlan plan = *PlanTraining(Options(), {}, 2);
  int64_t sum = 0;
  for (const auto& [purpose, bytes] : plan.memory) sum += bytes;
  EXPECT_EQ(plan.memory_bytes, sum);
}

}  // namespace
}  // namespace trainyard::train
