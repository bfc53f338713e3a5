#include "worker/train/trainer.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <thread>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/train/testing/tiny_run.h"

namespace trainyard::train {
namespace {

using kernels::DType;
using ::testing::HasSubstr;
using testing::TinyTraining;

TrainerOptions TinyOptions() {
  spec::AdamWOptions adamw;
  adamw.learning_rate = 0.01;
  TrainerOptions options = testing::TinyTrainerOptions(adamw);
  options.training.schedule.warmup_steps = 0;
  return options;
}

std::vector<float> WeightsOf(const Trainer& trainer) {
  std::vector<float> values;
  for (const kernels::TensorView& tensor : trainer.leading_weights()) {
    values.insert(values.end(), tensor.as<float>(), tensor.as<float>() + tensor.size());
  }
  return values;
}

absl::StatusOr<bool> Never() {
  return false;
}

// A model of this size learns the text almost by heart; a wrong sign, mask, shift or update stays near the entropy of
// single letters.
TEST(TrainerTest, LearnsFarBelowUnigramEntropy) {
  const std::string text = testing::TinyText();
  std::map<char, double> frequency;
  for (const char letter : text) frequency[letter] += 1.0 / static_cast<double>(text.size());
  double entropy = 0;
  for (const auto& [letter, share] : frequency) entropy -= share * std::log(share);

  testing::TinyDataset dataset;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const uint64_t seed : {1, 2}) {
      TrainerOptions options = TinyOptions();
      options.dtype = dtype;
      if (dtype == DType::kBF16) options.training.linear.scheme = spec::LinearBf16{};
      options.seed = seed;
      options.training.steps = 120;
      options.training.micro_batch = 8;
      options.training.schedule.warmup_steps = 5;
      const TinyTraining run(dataset, options);
      const std::vector<StepResult> results = run.Results(120);
      EXPECT_GT(results.front().loss, 5.4);
      EXPECT_LT(results.back().loss, 0.5 * entropy) << "entropy " << entropy;
      ASSERT_OK_AND_ASSIGN(const double validation, run.trainer->Evaluate(*run.loader, 2, Never));
      EXPECT_LT(validation, 0.5 * entropy);
    }
  }
}

TEST(TrainerTest, SameBitsForAnyThreadsAndMemoryOptions) {
  testing::TinyDataset dataset;
  TrainerOptions options = TinyOptions();
  options.training.micro_batch = 9;  // 288 rows: two head chunks
  options.training.accumulation = 2;
  const TinyTraining plain(dataset, options);
  const std::vector<double> losses = plain.Steps(4);
  options.threads = 3;
  options.training.recompute = spec::Recompute::kBlock;
  options.training.lm_head_chunks = 2;
  const TinyTraining saving(dataset, options);
  EXPECT_EQ(saving.Steps(4), losses);
  EXPECT_EQ(WeightsOf(*saving.trainer), WeightsOf(*plain.trainer));
}

TEST(TrainerTest, ResumedRunEqualsUndisturbedRunBitForBit) {
  testing::TinyDataset dataset;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    TrainerOptions options = TinyOptions();
    options.dtype = dtype;
    const TinyTraining undisturbed(dataset, options);
    const std::vector<StepResult> expected = undisturbed.Results(20);

    const TinyTraining first(dataset, options);
    first.Results(17);  // beyond the least count of z-scores
    const TinyTraining second(dataset, options);
    for (size_t i = 0; i < first.trainer->state().size(); ++i) {
      const kernels::TensorView& from = first.trainer->state()[i].tensor;
      EXPECT_EQ(second.trainer->state()[i].name, first.trainer->state()[i].name);
      std::memcpy(second.trainer->state()[i].tensor.data(), from.data(), static_cast<size_t>(from.bytes()));
    }
    ASSERT_OK(second.trainer->RestoreState(first.trainer->StateText()));
    ASSERT_OK(second.loader->Restore(first.loader->position()));
    EXPECT_EQ(second.trainer->step(), 17);
    const std::vector<StepResult> rest = second.Results(3);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(rest[i].loss, expected[17 + i].loss);
      EXPECT_EQ(rest[i].gradient_norm, expected[17 + i].gradient_norm);
      EXPECT_EQ(rest[i].loss_z_score, expected[17 + i].loss_z_score);
    }
    EXPECT_EQ(WeightsOf(*second.trainer), WeightsOf(*undisturbed.trainer));
  }
}

TEST(TrainerTest, RefusesAStateTextThatIsNone) {
  testing::TinyDataset dataset;
  const TinyTraining run(dataset, TinyOptions());
  for (const char* text : {"", "1 2 3", "1 2 3 4 x", "1 2 3 4 -5"}) {
    EXPECT_THAT(run.trainer->RestoreState(text), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("five counts")));
  }
}

// Two ranks see the same rows of a step as one rank with two micro-batches, in another order of addition.
TEST(TrainerTest, TwoRanksEqualOneRankThatAccumulates) {
  testing::TinyDataset dataset;
  TrainerOptions options = TinyOptions();
  std::vector<std::unique_ptr<comm::Communicator>> communicators = comm::MakeLocalCommunicators(2);
  std::vector<TinyTraining> runs;
  for (int rank = 0; rank < 2; ++rank) runs.push_back(TinyTraining(dataset, options, rank, 2));
  std::vector<std::vector<double>> losses(2);
  std::vector<double> evaluated(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      const auto r = static_cast<size_t>(rank);
      comm::ExchangeOptions exchange;
      exchange.communication.bucket_bytes = 20000;
      TY_CHECK_OK(runs[r].trainer->Connect(exchange, communicators[r].get()));
      losses[r] = runs[r].Steps(5);
      absl::StatusOr<double> evaluation = runs[r].trainer->Evaluate(*runs[r].loader, 5, Never);
      TY_CHECK_OK(evaluation);
      evaluated[r] = *evaluation;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(evaluated[0], evaluated[1]);
  EXPECT_EQ(WeightsOf(*runs[0].trainer), WeightsOf(*runs[1].trainer));

  options.training.accumulation = 2;
  const TinyTraining alone(dataset, options);
  const std::vector<double> alone_losses = alone.Steps(5);
  ASSERT_OK_AND_ASSIGN(const double alone_evaluated, alone.trainer->Evaluate(*alone.loader, 5, Never));
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(losses[0][i], alone_losses[i], 1e-4) << i;
  EXPECT_NEAR(evaluated[0], alone_evaluated, 1e-4);
  for (TinyTraining& run : runs) run.trainer.reset();  // before the communicators
}

// Codecs, error feedback, a bit plan, fitted levels and code tables: the whole state of a step, and the bytes of the
// plan.
comm::ExchangeOptions QuantizedExchange() {
  comm::ExchangeOptions exchange;
  spec::CommunicationOptions& communication = exchange.communication;
  communication.bucket_bytes = 20000;
  communication.codec = spec::MaxminCodec{4, 64};
  communication.error_feedback = true;
  communication.min_elements = 256;
  communication.plan = spec::LgrecoOptions{1.0, 5, 3, 2, 8};
  spec::LevelsCodec levels;
  levels.refit_steps = {0, 4};
  communication.types = {{"attention", "", spec::CodecOptions(levels)}};
  exchange.seed = 3;
  return exchange;
}

TEST(TrainerTest, AResumedQuantizedRunHasTheBitsOfAnUndisturbedOne) {
  testing::TinyDataset dataset;
  const int ranks = 2, steps = 12;
  std::vector<std::vector<float>> undisturbed(ranks), resumed(ranks);
  for (const int stop : {4, 7}) {  // 7: within the window of the second plan
    auto communicators = comm::MakeLocalCommunicators(ranks), later = comm::MakeLocalCommunicators(ranks);
    const auto on_ranks = [&](const std::function<void(size_t)>& body) {
      std::vector<std::thread> threads;
      for (size_t rank = 0; rank < ranks; ++rank) threads.emplace_back([&body, rank] { body(rank); });
      for (std::thread& thread : threads) thread.join();
    };
    std::vector<TinyTraining> first(ranks);
    on_ranks([&](size_t rank) {
      TinyTraining whole(dataset, TinyOptions(), static_cast<int>(rank), ranks);
      TY_CHECK_OK(whole.trainer->Connect(QuantizedExchange(), communicators[rank].get()));
      whole.Results(steps);
      undisturbed[rank] = WeightsOf(*whole.trainer);
      EXPECT_GE(whole.trainer->exchange()->stats().plan_epoch, 2);
    });
    communicators = comm::MakeLocalCommunicators(ranks);
    on_ranks([&](size_t rank) {
      first[rank] = TinyTraining(dataset, TinyOptions(), static_cast<int>(rank), ranks);
      TY_CHECK_OK(first[rank].trainer->Connect(QuantizedExchange(), communicators[rank].get()));
      first[rank].Results(stop);

      TinyTraining second(dataset, TinyOptions(), static_cast<int>(rank), ranks);
      TY_CHECK_OK(second.trainer->PrepareExchange(QuantizedExchange(), static_cast<int>(rank), ranks));
      const auto copy = [](const kernels::TensorView& from, const kernels::TensorView& to) {
        std::memcpy(to.data(), from.data(), static_cast<size_t>(from.bytes()));
      };
      for (size_t i = 0; i < second.trainer->state().size(); ++i) {
        copy(first[rank].trainer->state()[i].tensor, second.trainer->state()[i].tensor);
      }
      comm::ExchangeState& from = *first[rank].trainer->exchange_state();
      comm::ExchangeState& to = *second.trainer->exchange_state();
      EXPECT_FALSE(to.local_state().empty());
      for (size_t i = 0; i < to.local_state().size(); ++i) {
        EXPECT_EQ(to.local_state()[i].name, from.local_state()[i].name);
        copy(from.local_state()[i].tensor, to.local_state()[i].tensor);
      }
      TY_CHECK_OK(to.RestoreText(from.Text()));
      TY_CHECK_OK(second.trainer->RestoreState(first[rank].trainer->StateText()));
      TY_CHECK_OK(second.loader->Restore(first[rank].loader->position()));
      TY_CHECK_OK(second.trainer->Connect(later[rank].get()));
      second.Results(steps - stop);
      resumed[rank] = WeightsOf(*second.trainer);
      first[rank].trainer.reset();
    });
    EXPECT_EQ(undisturbed[0], undisturbed[1]);
    EXPECT_EQ(resumed[0], undisturbed[0]) << stop;
    EXPECT_EQ(resumed[1], undisturbed[0]) << stop;
  }
}

// methods/llmq.md, pitfall 1: clipping with the squared norm would make the update much shorter.
TEST(TrainerTest, ClippedUpdateHasTheLengthOfTheThreshold) {
  testing::TinyDataset dataset;
  TrainerOptions options = TinyOptions();
  spec::SgdOptions sgd;
  sgd.learning_rate = 1;
  sgd.momentum = 0;
  options.training.optimizer = sgd;
  options.training.clip_norm = 0.01;
  const TinyTraining run(dataset, options);
  const std::vector<float> before = WeightsOf(*run.trainer);
  const StepResult result = run.Results(1)[0];
  const std::vector<float> after = WeightsOf(*run.trainer);
  ASSERT_GT(result.gradient_norm, 0.1);
  double squares = 0;
  for (size_t i = 0; i < before.size(); ++i) squares += std::pow(after[i] - before[i], 2);
  EXPECT_NEAR(std::sqrt(squares), 0.01 * result.learning_rate, 1e-5);
}

// Norms and biases keep their length under decay; only matrices shrink.
TEST(TrainerTest, DecayActsOnMatricesOnly) {
  testing::TinyDataset dataset;
  TrainerOptions options = TinyOptions();
  spec::SgdOptions sgd;
  sgd.learning_rate = 0.5;
  sgd.momentum = 0;
  sgd.weight_decay = 1;
  options.training.optimizer = sgd;
  options.training.clip_norm = 1e-6;  // no gradient to speak of
  options.training.schedule.shape = spec::ScheduleShape::kConstant;
  const TinyTraining run(dataset, options);
  const std::vector<float> before = WeightsOf(*run.trainer);
  run.Results(1);
  const std::vector<float> after = WeightsOf(*run.trainer);
  size_t at = 0;
  for (const model::Parameter& parameter : run.trainer->parameters()) {
    const float expected = parameter.is_matrix() ? 0.5f : 1.0f;
    EXPECT_NEAR(after[at] / before[at], expected, 1e-3) << parameter.name;
    at += static_cast<size_t>(parameter.size());
  }
}

void Poison(Trainer& trainer) {
  trainer.leading_weights()[1].as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  trainer.RoundWeights();
}

TEST(TrainerTest, NanFailsTheStepUnderPolicyFail) {
  testing::TinyDataset dataset;
  const TinyTraining run(dataset, TinyOptions());
  run.Results(2);
  Poison(*run.trainer);
  EXPECT_THAT(run.trainer->Step(*run.loader),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("step 3: loss nan")));
}

TEST(TrainerTest, NanDropsUpdatesUnderPolicySkipUntilTenInARow) {
  testing::TinyDataset dataset;
  TrainerOptions options = TinyOptions();
  options.training.nan_policy = spec::NanPolicy::kSkip;
  options.training.steps = 100;
  const TinyTraining run(dataset, options);
  run.Results(1);
  const float healthy = run.trainer->leading_weights()[1].as<float>()[0];
  Poison(*run.trainer);
  const std::vector<float> before = WeightsOf(*run.trainer);
  for (const StepResult& result : run.Results(9)) EXPECT_FALSE(result.updated);
  const std::vector<float> after = WeightsOf(*run.trainer);
  EXPECT_EQ(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)), 0);
  EXPECT_EQ(run.trainer->step(), 10);
  // One good step, and the count begins again.
  run.trainer->leading_weights()[1].as<float>()[0] = healthy;
  EXPECT_TRUE(run.Results(1)[0].updated);
  Poison(*run.trainer);
  run.Results(9);
  EXPECT_THAT(run.trainer->Step(*run.loader),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("9 steps before")));
}

TEST(TrainerTest, EvaluationCanBeBrokenOffAndNeedsWindows) {
  testing::TinyDataset dataset;
  const TinyTraining run(dataset, TinyOptions());
  const auto stop = []() -> absl::StatusOr<bool> { return true; };
  EXPECT_THAT(run.trainer->Evaluate(*run.loader, 2, stop),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("broken off")));
  testing::TinyDataset empty(testing::TinyText(), "short");
  const TinyTraining without(empty, TinyOptions());
  EXPECT_THAT(without.trainer->Evaluate(*without.loader, 2, Never),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("no validation windows")));
}

TEST(TrainerTest, RefusesSequencesBeyondTheModelsPositions) {
  TrainerOptions options = TinyOptions();
  options.config.max_positions = 31;
  EXPECT_THAT(Trainer::Create(options), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("sequence_length: 32")));
}

}  // namespace
}  // namespace trainyard::train
