// Trainings whose state lives on the host (training.offload) beside those that have it on the device: bits, waits,
// traffic, memory. On the CUDA device of the build; on the emulated one copies are late
// (kernels/core/simt/late_copies.h) and the guard watches who touches what (kernels/core/simt/guard.h).
#include <cstdlib>
#include <map>
#include <string>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/core/device.h"
#include "kernels/core/simt/waits.h"
#include "worker/train/plan.h"
#include "worker/train/testing/tiny_run.h"

namespace trainyard::train {
namespace {

using kernels::Device;
using kernels::DType;
using kernels::TensorView;
using spec::OffloadOptions;
using ::testing::HasSubstr;
using testing::TinyTraining;

const testing::TinyDataset& Dataset() {
  static const auto* const dataset = new testing::TinyDataset;
  return *dataset;
}

constexpr OffloadOptions kNothing = {};
constexpr OffloadOptions kEverything = {.moments = true, .master = true, .residuals = true};

spec::OptimizerOptions AdamW(spec::MomentType first, spec::MomentType second) {
  spec::AdamWOptions options;
  options.first_moment = first;
  options.second_moment = second;
  return options;
}

// One wide enough block for several pieces a matrix; with recomputing four, so that two inputs travel.
TrainerOptions Options(const spec::OptimizerOptions& optimizer, DType dtype, const OffloadOptions& offload) {
  TrainerOptions options = testing::TinyTrainerOptions(optimizer);
  options.config.vocab_size = 257;
  options.config.hidden_size = 20;
  options.config.intermediate_size = 36;
  options.config.q_heads = 2;
  options.config.kv_heads = 1;
  options.config.head_dim = 10;
  options.config.layers = 1;
  options.sequence_length = 16;
  options.dtype = dtype;
  if (dtype == DType::kBF16) options.training.linear.scheme = spec::LinearBf16{};
  options.training.offload = offload;
  options.device = Device::kCuda;
  return options;
}

TrainerOptions Recomputing(TrainerOptions options) {
  options.config.layers = 4;
  options.training.recompute = spec::Recompute::kBlock;
  return options;
}

class OffloadTrainingTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (kernels::CheckCudaDevice().ok()) setenv("TRAINYARD_SIMT_GUARD", "1", /*overwrite=*/1);
  }
  void SetUp() override {
    if (const absl::Status status = kernels::CheckCudaDevice(); !status.ok()) GTEST_SKIP() << status;
  }
};

void ExpectSameResults(const std::vector<StepResult>& a, const std::vector<StepResult>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].loss, b[i].loss) << "step " << i;
    EXPECT_EQ(a[i].gradient_norm, b[i].gradient_norm) << "step " << i;
  }
}

void ExpectSameBits(const TinyTraining& a, const TinyTraining& b) {
  EXPECT_TRUE(a.StateBytes() == b.StateBytes());
  for (size_t i = 0; i < a.trainer->weights().all.size(); ++i) {
    const TensorView &x = a.trainer->weights().all[i], &y = b.trainer->weights().all[i];
    EXPECT_EQ(std::memcmp(x.data(), y.data(), static_cast<size_t>(x.bytes())), 0) << a.trainer->parameters()[i].name;
  }
}

struct BitsCase {
  std::string name;
  spec::OptimizerOptions optimizer;
  DType dtype;
  std::vector<OffloadOptions> choices;
};

class OffloadBitsTest : public OffloadTrainingTest, public ::testing::WithParamInterface<BitsCase> {};

TEST_P(OffloadBitsTest, AreThoseOfATrainingWithoutIt) {
  const BitsCase& c = GetParam();
  const TinyTraining plain(Dataset(), Options(c.optimizer, c.dtype, kNothing));
  const std::vector<StepResult> expected = plain.Results(3);
  EXPECT_NE(expected.front().loss, expected.back().loss);
  for (const OffloadOptions& offload : c.choices) {
    const TinyTraining offloaded(Dataset(), Options(c.optimizer, c.dtype, offload));
    ExpectSameResults(offloaded.Results(3), expected);
    ExpectSameBits(offloaded, plain);
  }
}

std::vector<BitsCase> BitsCases() {
  using enum spec::MomentType;
  const OffloadOptions moments = {.moments = true}, master = {.master = true}, both = {.moments = true, .master = true};
  spec::SgdOptions still;
  still.momentum = 0;
  return {{"adamw_f32", spec::AdamWOptions{}, DType::kF32, {moments}},
          {"adamw_bf16", spec::AdamWOptions{}, DType::kBF16, {moments, master, both}},
          {"bf16_moments_f32", AdamW(kBf16, kBf16), DType::kF32, {moments}},
          {"small_moments_f32", AdamW(kE4M3, kBf16), DType::kF32, {moments}},
          {"small_moments_bf16", AdamW(kE4M3, kBf16), DType::kBF16, {moments, master, both}},
          {"sgd_f32", spec::SgdOptions{}, DType::kF32, {moments}},
          {"sgd_bf16", spec::SgdOptions{}, DType::kBF16, {both}},
          {"sgd_without_momentum_bf16", still, DType::kBF16, {master}}};
}

INSTANTIATE_TEST_SUITE_P(All, OffloadBitsTest, ::testing::ValuesIn(BitsCases()),
                         [](const auto& info) { return info.param.name; });

// With micro-batches that add up, and an evaluation between steps, which uses the same buffers.
TEST_F(OffloadTrainingTest, InputsOfBlocksComeBackAsTheyWere) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    TrainerOptions options = Recomputing(Options(spec::AdamWOptions{}, dtype, kNothing));
    options.training.accumulation = 2;
    const TinyTraining plain(Dataset(), options);
    options.training.offload = {.residuals = true};
    const TinyTraining offloaded(Dataset(), options);
    const auto never = []() -> absl::StatusOr<bool> { return false; };
    for (int i = 0; i < 2; ++i) {
      ExpectSameResults(offloaded.Results(1), plain.Results(1));
      EXPECT_EQ(*offloaded.trainer->Evaluate(*offloaded.loader, 1, never),
                *plain.trainer->Evaluate(*plain.loader, 1, never));
    }
    ExpectSameBits(offloaded, plain);
  }
}

// Blocks of attention alone, of an MLP alone, and of nothing; and as few blocks as there can be.
TEST_F(OffloadTrainingTest, BlocksMayDiffer) {
  const auto shape = [](int64_t heads, int64_t intermediate) {
    model::BlockShape block;
    block.q_heads = 2 * heads;
    block.kv_heads = heads;
    block.intermediate = intermediate;
    return block;
  };
  const model::BlockShape attention = shape(1, 0), mlp = shape(0, 36), both = shape(1, 36), nothing = shape(0, 0);
  for (const std::vector<model::BlockShape>& blocks :
       {std::vector<model::BlockShape>{nothing, mlp, attention, nothing, both, attention, mlp, nothing},
        {nothing, mlp, nothing},
        {both, attention},
        {nothing}}) {
    TrainerOptions options = Recomputing(Options(spec::SgdOptions{}, DType::kF32, kNothing));
    options.config.layers = static_cast<int64_t>(blocks.size());
    options.config.blocks = blocks;
    const TinyTraining plain(Dataset(), options);
    options.training.offload = {.residuals = true};
    const TinyTraining offloaded(Dataset(), options);
    ExpectSameResults(offloaded.Results(2), plain.Results(2));
    ExpectSameBits(offloaded, plain);
  }
}

// What a checkpoint holds does not tell where it lived.
TEST_F(OffloadTrainingTest, AResumedRunEqualsTheUndisturbedOneWhereverStateLives) {
  const spec::OptimizerOptions optimizer = AdamW(spec::MomentType::kE4M3, spec::MomentType::kBf16);
  const auto options = [&](const OffloadOptions& offload) {
    return Recomputing(Options(optimizer, DType::kBF16, offload));
  };
  const TinyTraining undisturbed(Dataset(), options(kNothing));
  const std::vector<StepResult> expected = undisturbed.Results(4);
  for (const auto& [before, after] :
       {std::pair{kEverything, kEverything}, {kEverything, kNothing}, {kNothing, kEverything}}) {
    const TinyTraining first(Dataset(), options(before));
    ExpectSameResults(first.Results(2), {expected.begin(), expected.begin() + 2});
    const TinyTraining resumed(Dataset(), options(after));
    resumed.RestoreFrom(first);
    ExpectSameResults(resumed.Results(2), {expected.begin() + 2, expected.end()});
    ExpectSameBits(resumed, undisturbed);
  }
}

int64_t StateBytes(const Trainer& trainer, const std::string& prefix) {
  int64_t bytes = 0;
  for (const optim::NamedTensor& named : trainer.state()) {
    if (named.name.rfind(prefix, 0) == 0) bytes += named.tensor.bytes();
  }
  return bytes;
}

// Each way once: state in an update, inputs of all blocks but the last in a micro-batch.
TEST_F(OffloadTrainingTest, AStepWaitsNoMoreThanWithoutItAndCopiesWhatThereIs) {
  TrainerOptions options =
      Recomputing(Options(AdamW(spec::MomentType::kE4M3, spec::MomentType::kBf16), DType::kBF16, kNothing));
  options.training.accumulation = 3;
  const auto count = [](const TrainerOptions& counted, int64_t* waits, int64_t* bytes, int64_t* expected) {
    const TinyTraining training(Dataset(), counted);
    training.Results(1);
    const int64_t waits_before = simt::WaitCount(), bytes_before = simt::CopiedBytes();
    training.Results(1);
    *waits = simt::WaitCount() - waits_before;
    *bytes = simt::CopiedBytes() - bytes_before;
    const int64_t inputs = (counted.config.layers - 1) * counted.training.micro_batch * counted.sequence_length *
                           counted.config.hidden_size * 2;
    *expected = 2 * (StateBytes(*training.trainer, "adamw.") + StateBytes(*training.trainer, "weight/") +
                     counted.training.accumulation * inputs);
  };
  int64_t plain_waits, plain_bytes, waits, bytes, expected;
  count(options, &plain_waits, &plain_bytes, &expected);
  options.training.offload = kEverything;
  count(options, &waits, &bytes, &expected);
  EXPECT_EQ(waits, plain_waits);
  EXPECT_EQ(plain_bytes, 0);
  if (kernels::DeviceBackend() == "emulated") {
    EXPECT_EQ(bytes, expected);
    EXPECT_GT(waits, 0);  // or nothing is counted
  }
}

TEST_F(OffloadTrainingTest, ARunReservesWhatThePlanTells) {
  for (const OffloadOptions& offload : {kNothing, OffloadOptions{.moments = true}, kEverything}) {
    const TrainerOptions options = Recomputing(Options(spec::AdamWOptions{}, DType::kBF16, offload));
    const TrainingPlan plan = *PlanTraining(options, {}, 1);
    const TinyTraining training(Dataset(), options);
    kernels::MemoryPlan all = training.trainer->memory_plan(), pinned = training.trainer->pinned_plan();
    EXPECT_EQ(pinned.count("moments"), offload.moments ? 1u : 0u);
    EXPECT_EQ(pinned.count("master"), offload.master ? 1u : 0u);
    all["checkpoint"] = pinned["checkpoint"] = plan.memory.at("checkpoint");
    EXPECT_EQ(all, plan.memory);
    EXPECT_EQ(pinned, plan.host_memory);
  }
}

}  // namespace
}  // namespace trainyard::train
