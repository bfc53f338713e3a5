// Training with the linear schemes that compute in FP8 and FP4: that it learns, and that its bits are those promised
// for every training.
#include <string>
#include <vector>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/train/testing/tiny_run.h"

namespace trainyard::train {
namespace {

using kernels::DType;
using ::testing::HasSubstr;
using testing::TinyTraining;
using Quartet = spec::LinearQuartet;
using Quartet2 = spec::LinearQuartet2;
using Quest = spec::LinearQuest;

// Rows, widths and heads that the groups of all schemes divide.
TrainerOptions TinyOptions(const spec::LinearOptions& linear) {
  spec::AdamWOptions adamw;
  adamw.learning_rate = 0.004;
  TrainerOptions options = testing::TinyTrainerOptions(adamw);
  options.config.hidden_size = 128;
  options.config.intermediate_size = 128;
  options.config.head_dim = 16;
  options.training.steps = 60;
  options.training.micro_batch = 4;
  options.training.schedule.warmup_steps = 0;
  options.training.linear = linear;
  return options;
}

absl::StatusOr<bool> Never() {
  return false;
}

struct Case {
  std::string name;
  spec::LinearOptions linear;
};
std::vector<Case> Cases() {
  const Quartet stochastic{.backward_rounding = Quartet::Rounding::kStochastic,
                           .forward_method = Quartet::ForwardMethod::kAbsMaxStochastic};
  const Quartet2 nvidia{.recipe = Quartet2::Recipe::kNvidia, .four_over_six = false};
  const Quest quest{.hadamard_dim = 64};
  const Quest lsq{
      .hadamard_dim = 0, .projection = Quest::Projection::kLsq, .gradient_mask = Quest::GradientMask::kClip};
  const Quartet2 tetrajet{.recipe = Quartet2::Recipe::kTetraJetV2, .four_over_six = false};
  return {{"quest", {quest, {}}},
          {"lsq", {lsq, {}}},
          {"fp8", {spec::LinearFp8{}, {}}},
          {"quartet", {Quartet{}, {}}},
          {"quartet_stochastic", {stochastic, {}}},
          {"quartet2", {Quartet2{}, {}}},
          {"nvidia", {nvidia, {}}},
          {"tetrajet_v2", {tetrajet, {}}}};
}

class LowPrecisionTest : public ::testing::TestWithParam<Case> {
 protected:
  const testing::TinyDataset dataset_;
};
INSTANTIATE_TEST_SUITE_P(All, LowPrecisionTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

// Near what f32 reaches, which a gradient with the wrong factor, sign or transpose does not; evaluated through the same
// quantizers.
TEST_P(LowPrecisionTest, Learns) {
  const TinyTraining dense(dataset_, TinyOptions({spec::LinearFp32{}, {}})),
      run(dataset_, TinyOptions(GetParam().linear));
  const double reached = dense.Steps(60).back();
  const std::vector<double> losses = run.Steps(60);
  RecordProperty("fp32", std::to_string(reached));
  RecordProperty("last", std::to_string(losses.back()));
  EXPECT_GT(losses.front(), 5.4);
  EXPECT_LT(losses.back(), reached + 0.5);
  ASSERT_OK_AND_ASSIGN(const double validation, run.trainer->Evaluate(*run.loader, 2, Never));
  EXPECT_LT(validation, reached + 1);
}

TEST_P(LowPrecisionTest, SameBitsForAnyThreadsAndMemoryOptions) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    TrainerOptions options = TinyOptions(GetParam().linear);
    options.dtype = dtype;
    options.training.accumulation = 2;
    const TinyTraining plain(dataset_, options);
    const std::vector<double> losses = plain.Steps(3);
    options.threads = 2;
    options.training.recompute = spec::Recompute::kBlock;
    const TinyTraining saving(dataset_, options);
    EXPECT_EQ(saving.Steps(3), losses);
    EXPECT_EQ(saving.StateBytes(), plain.StateBytes());
  }
}

// Random numbers come from the step, not from what has been drawn before.
TEST_P(LowPrecisionTest, ResumedRunEqualsUndisturbedRunBitForBit) {
  const TrainerOptions options = TinyOptions(GetParam().linear);
  const TinyTraining undisturbed(dataset_, options), first(dataset_, options), second(dataset_, options);
  const std::vector<double> expected = undisturbed.Steps(6);
  first.Steps(4);
  second.RestoreFrom(first);
  EXPECT_EQ(second.Steps(2), std::vector<double>(expected.begin() + 4, expected.end()));
  EXPECT_EQ(second.StateBytes(), undisturbed.StateBytes());
}

// What a scheme learns is trained with the weights: its steps begin as they are calibrated, the same on all ranks, and
// move; nothing of them is exported.
TEST(LearnedStepsTest, StepsAreParametersLikeOthers) {
  const testing::TinyDataset dataset;
  const TinyTraining run(
      dataset,
      TinyOptions(
          {Quest{.hadamard_dim = 0, .projection = Quest::Projection::kLsq, .gradient_mask = Quest::GradientMask::kClip},
           {}}));
  run.Steps(1);
  std::vector<float> before;
  int64_t found = 0;
  const std::vector<model::Parameter>& parameters = run.trainer->parameters();
  const auto steps = [&] {
    std::vector<float> values;
    found = 0;
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!parameters[i].belongs_to_scheme) continue;
      ++found;
      EXPECT_TRUE(parameters[i].parts.empty());
      EXPECT_EQ(parameters[i].size(), 2);
      for (int k = 0; k < 2; ++k) values.push_back(run.trainer->leading_weights()[i].as<float>()[k]);
    }
    return values;
  };
  before = steps();
  EXPECT_EQ(found, 2 * 4);
  for (const float step : before) EXPECT_GT(step, 1e-4f);
  run.Steps(5);
  const std::vector<float> after = steps();
  for (size_t i = 0; i < before.size(); ++i) EXPECT_NE(after[i], before[i]) << i;
}

// Sizes that groups do not divide are refused by name before any memory is taken.
TEST(LowPrecisionRefusalTest, NamesTheSiteTheSizeAndTheGroup) {
  const auto refused = [](const TrainerOptions& options, const std::string& text) {
    EXPECT_THAT(Trainer::Create(options), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text)));
  };
  TrainerOptions odd = TinyOptions({Quartet{}, {}});
  odd.config.intermediate_size = 48;
  refused(odd, "layers.0.down: 48 is not a multiple of 32");
  TrainerOptions rows = TinyOptions({Quartet2{}, {}});
  rows.training.micro_batch = 3;
  refused(rows, "96 is not a multiple of 128");
  rows.training.linear = {Quartet2{.backward_enabled = false}, {}};
  EXPECT_OK(Trainer::Create(rows));
}

}  // namespace
}  // namespace trainyard::train
