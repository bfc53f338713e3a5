// Training whose block matrices are codes and scales only (ECO), and AdamW with moments of few bits: memory to the
// byte, equal bits where they are promised, and that it learns.
#include <cmath>
#include <cstring>
#include <thread>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/linear/make_linear_scheme.h"
#include "worker/train/testing/tiny_run.h"
#include "worker/train/trainer.h"

namespace trainyard::train {
namespace {

using kernels::DType;
using kernels::TensorView;
using ::testing::HasSubstr;
using testing::TinyTrainerOptions;
using testing::TinyTraining;
using Format = spec::EcoOptions::WeightFormat;
using Granularity = spec::EcoOptions::Granularity;

spec::EcoOptions Eco(Format format, Granularity granularity) {
  spec::EcoOptions eco;
  eco.learning_rate = 0.01;
  eco.weight_format = format;
  eco.scale_granularity = granularity;
  return eco;
}

std::vector<spec::OptimizerOptions> Optimizers() {
  std::vector<spec::OptimizerOptions> optimizers;
  for (const Granularity granularity : {Granularity::kRow, Granularity::kGroup32, Granularity::kTensor}) {
    optimizers.push_back(Eco(Format::kE4M3, granularity));
    optimizers.push_back(Eco(Format::kInt4, granularity));
  }
  spec::EcoOptions small = Eco(Format::kE4M3, Granularity::kRow);
  small.first_moment = small.second_moment = spec::MomentType::kBf16;
  optimizers.push_back(small);
  spec::EcoOptions exact = Eco(Format::kE4M3, Granularity::kRow);
  exact.form = spec::EcoOptions::Form::kSgdmExact;
  optimizers.push_back(exact);
  spec::AdamWOptions adamw;
  adamw.learning_rate = 0.01;
  adamw.first_moment = adamw.second_moment = spec::MomentType::kBf16;
  optimizers.push_back(adamw);
  adamw.first_moment = spec::MomentType::kE4M3;
  optimizers.push_back(adamw);
  return optimizers;
}

// All that is in a checkpoint.
std::vector<uint8_t> StateBytes(const Trainer& trainer) {
  std::vector<uint8_t> bytes;
  for (const optim::NamedTensor& tensor : trainer.state()) {
    const auto* const begin = static_cast<const uint8_t*>(tensor.tensor.data());
    bytes.insert(bytes.end(), begin, begin + tensor.tensor.bytes());
  }
  return bytes;
}

absl::StatusOr<bool> Never() {
  return false;
}

TEST(CodedTrainingTest, LearnsFarBelowTheEntropyOfLetters) {
  testing::TinyDataset dataset;
  spec::AdamWOptions small_moments;
  small_moments.learning_rate = 0.01;
  small_moments.first_moment = spec::MomentType::kE4M3;
  small_moments.second_moment = spec::MomentType::kBf16;
  spec::EcoOptions sgdm = Eco(Format::kE4M3, Granularity::kRow);
  for (const spec::OptimizerOptions& optimizer :
       {spec::OptimizerOptions(Eco(Format::kE4M3, Granularity::kRow)),
        spec::OptimizerOptions(Eco(Format::kInt4, Granularity::kGroup32)), spec::OptimizerOptions(small_moments)}) {
    TrainerOptions options = TinyTrainerOptions(optimizer);
    options.training.steps = 120;
    options.training.micro_batch = 8;
    options.training.schedule.warmup_steps = 5;
    const TinyTraining run(dataset, options);
    const std::vector<double> losses = run.Steps(120);
    EXPECT_GT(losses.front(), 5.4);
    EXPECT_LT(losses.back(), 1.4);  // half the entropy of the letters
    ASSERT_OK_AND_ASSIGN(const double validation, run.trainer->Evaluate(*run.loader, 2, Never));
    EXPECT_LT(validation, 1.4);
    std::printf("%zu: last loss %.3f, validation %.3f\n", optimizer.index(), losses.back(), validation);
  }
}

// The order of losses that methods/eco.md asks for, as far as a model of this size tells it: stochastic ECO is beside
// the master weights, nearest rounding is not, with injection or without.
TEST(CodedTrainingTest, StochasticRoundingWithInjectionIsNearTheMaster) {
  testing::TinyDataset dataset;
  const auto loss_of = [&](const spec::OptimizerOptions& optimizer, uint64_t seed) {
    TrainerOptions options = TinyTrainerOptions(optimizer);
    options.seed = seed;
    options.training.steps = 150;
    options.training.micro_batch = 8;
    const TinyTraining run(dataset, options);
    const std::vector<double> losses = run.Steps(150);
    double mean = 0;
    for (size_t i = 140; i < 150; ++i) mean += losses[i] / 10;
    return mean;
  };
  for (const uint64_t seed : {1, 2}) {
    spec::AdamWOptions adamw;
    adamw.learning_rate = 0.002;
    adamw.beta2 = 0.98;
    spec::EcoOptions eco = Eco(Format::kInt4, Granularity::kGroup32);
    eco.learning_rate = 0.002;
    const double master = loss_of(adamw, seed), stochastic = loss_of(eco, seed);
    eco.rounding = spec::EcoOptions::Rounding::kNearest;
    const double nearest = loss_of(eco, seed);
    eco.error_injection = false;
    const double naive = loss_of(eco, seed);
    std::printf("seed %d: master %.3f, ECO stochastic %.3f, nearest %.3f, naive nearest %.3f\n", static_cast<int>(seed),
                master, stochastic, nearest, naive);
    EXPECT_LT(stochastic, master + 0.1);
    EXPECT_LT(stochastic, nearest - 0.1);
    EXPECT_LT(stochastic, naive - 0.1);
  }
}

TEST(CodedTrainingTest, SameBitsForAnyThreadsAndMemoryOptions) {
  testing::TinyDataset dataset;
  for (const spec::OptimizerOptions& optimizer : Optimizers()) {
    TrainerOptions options = TinyTrainerOptions(optimizer);
    options.training.accumulation = 2;
    const TinyTraining plain(dataset, options);
    const std::vector<double> losses = plain.Steps(4);
    options.threads = 3;
    options.training.recompute = spec::Recompute::kBlock;
    const TinyTraining saving(dataset, options);
    EXPECT_EQ(saving.Steps(4), losses);
    EXPECT_EQ(StateBytes(*saving.trainer), StateBytes(*plain.trainer));
  }
}

TEST(CodedTrainingTest, ResumedRunEqualsUndisturbedRunBitForBit) {
  testing::TinyDataset dataset;
  for (const spec::OptimizerOptions& optimizer : Optimizers()) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      TrainerOptions options = TinyTrainerOptions(optimizer);
      options.dtype = dtype;
      if (dtype == DType::kBF16) options.training.linear.scheme = spec::LinearBf16{};
      const TinyTraining undisturbed(dataset, options);
      const std::vector<double> expected = undisturbed.Steps(8);

      const TinyTraining first(dataset, options);
      first.Steps(5);
      const TinyTraining second(dataset, options);
      second.Steps(1);  // what is in its memory must not show
      for (size_t i = 0; i < first.trainer->state().size(); ++i) {
        const TensorView& from = first.trainer->state()[i].tensor;
        EXPECT_EQ(second.trainer->state()[i].name, first.trainer->state()[i].name);
        std::memcpy(second.trainer->state()[i].tensor.data(), from.data(), static_cast<size_t>(from.bytes()));
      }
      ASSERT_OK(second.trainer->RestoreState(first.trainer->StateText()));
      ASSERT_OK(second.loader->Restore(first.loader->position()));
      EXPECT_EQ(second.Steps(3), std::vector<double>(expected.begin() + 5, expected.end()));
      EXPECT_EQ(StateBytes(*second.trainer), StateBytes(*undisturbed.trainer));
    }
  }
}

// Noise is keyed by the element, not the rank.
TEST(CodedTrainingTest, RanksKeepEqualCodes) {
  testing::TinyDataset dataset;
  for (const spec::OptimizerOptions& optimizer : Optimizers()) {
    std::vector<std::unique_ptr<comm::Communicator>> communicators = comm::MakeLocalCommunicators(2);
    std::vector<std::vector<uint8_t>> states(2);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 2; ++rank) {
      threads.emplace_back([&, rank] {
        const auto r = static_cast<size_t>(rank);
        const TinyTraining run(dataset, TinyTrainerOptions(optimizer), rank, 2);
        TY_CHECK_OK(run.trainer->Connect(comm::ExchangeOptions(), communicators[r].get()));
        run.Steps(4);
        states[r] = StateBytes(*run.trainer);
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(states[0], states[1]);
  }
}

// What is exported and sampled from is what the next forward would read; taking it out changes nothing.
TEST(CodedTrainingTest, DecodedWeightsAreThoseOfTheForward) {
  testing::TinyDataset dataset;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    TrainerOptions options = TinyTrainerOptions(Eco(Format::kInt4, Granularity::kGroup32));
    options.dtype = dtype;
    if (dtype == DType::kBF16) options.training.linear.scheme = spec::LinearBf16{};
    const TinyTraining run(dataset, options);
    run.Steps(3);
    ASSERT_OK_AND_ASSIGN(const double before, run.trainer->Evaluate(*run.loader, 2, Never));
    const model::NetworkTensors& decoded = run.trainer->DecodedWeights();
    int64_t coded = 0;
    for (size_t i = 0; i < decoded.all.size(); ++i) {
      EXPECT_EQ(decoded.all[i].dtype(), dtype);
      EXPECT_TRUE(SameShape(decoded.all[i], run.trainer->weights().all[i]));
      coded += run.trainer->weights().all[i] ? 0 : 1;
    }
    EXPECT_EQ(coded, 8);  // four matrices in each of two blocks

    // A network that has these weights as numbers.
    kernels::Arena counting = kernels::Arena::CountOnly();
    const auto scheme = linear::MakeFp32Scheme();
    const model::NetworkOptions shape{.batch = 2, .seq = 32, .dtype = dtype};
    model::Network(options.config, shape, scheme.get(), &decoded, nullptr, counting);
    kernels::Arena arena = *kernels::Arena::Reserve(counting.used_bytes());
    model::Network network(options.config, shape, scheme.get(), &decoded, nullptr, arena);
    kernels::Stream stream(1);
    network.Prepare(stream);
    double sum = 0;
    int64_t count = 0;
    for (int64_t batch = 0; batch < 2; ++batch) {
      ASSERT_OK(run.loader->Validation(batch * 2, network.tokens(), network.targets()).status());
      network.Forward(stream);
      for (int64_t i = 0; i < network.losses().size(); ++i, ++count) sum += network.losses().as<float>()[i];
    }
    EXPECT_EQ(before, sum / static_cast<double>(count));
    const TinyTraining undisturbed(dataset, options);
    undisturbed.Steps(3);
    EXPECT_EQ(run.Steps(2), undisturbed.Steps(2));
  }
}

// Under every linear scheme: what it computes from codes is what it computes from the decoded numbers.
TEST(CodedTrainingTest, EveryLinearSchemeReadsTheCodes) {
  testing::TinyDataset dataset;
  using Schemes = decltype(spec::LinearOptions::scheme);
  for (const Schemes& scheme :
       {Schemes(spec::LinearFp32()), Schemes(spec::LinearBf16()), Schemes(spec::LinearFp8()),
        Schemes(spec::LinearQuest()), Schemes(spec::LinearQuartet()), Schemes(spec::LinearQuartet2())}) {
    TrainerOptions options = TinyTrainerOptions(Eco(Format::kE4M3, Granularity::kGroup32));
    options.config.hidden_size = options.config.intermediate_size = 128;
    options.config.head_dim = 32;
    options.training.micro_batch = 4;  // 128 rows
    options.training.linear.scheme = scheme;
    const TinyTraining run(dataset, options);
    run.Steps(3);
    ASSERT_OK_AND_ASSIGN(const double coded, run.trainer->Evaluate(*run.loader, 1, Never));

    const auto dense = linear::MakeLinearScheme(options.training.linear);
    const model::NetworkTensors& decoded = run.trainer->DecodedWeights();
    const model::NetworkOptions shape{.batch = 4, .seq = 32, .dtype = options.dtype};
    kernels::Arena counting = kernels::Arena::CountOnly();
    model::Network(options.config, shape, dense.get(), &decoded, nullptr, counting);
    kernels::Arena arena = *kernels::Arena::Reserve(counting.used_bytes());
    model::Network network(options.config, shape, dense.get(), &decoded, nullptr, arena);
    kernels::Stream stream(1);
    network.Prepare(stream);
    ASSERT_OK(run.loader->Validation(0, network.tokens(), network.targets()).status());
    network.Forward(stream);
    double sum = 0;
    for (int64_t i = 0; i < network.losses().size(); ++i) sum += network.losses().as<float>()[i];
    EXPECT_EQ(coded, sum / static_cast<double>(network.losses().size())) << scheme.index();

    options.threads = 3;
    options.training.recompute = spec::Recompute::kBlock;
    const TinyTraining saving(dataset, options);
    saving.Steps(3);
    EXPECT_EQ(StateBytes(*saving.trainer), StateBytes(*run.trainer)) << scheme.index();
  }
}

// Import writes floats, which RoundWeights turns into the nearest codes.
TEST(CodedTrainingTest, WrittenWeightsBecomeTheNearestCodes) {
  testing::TinyDataset dataset;
  const TinyTraining run(dataset, TinyTrainerOptions(Eco(Format::kE4M3, Granularity::kRow)));
  run.Steps(2);
  const std::vector<TensorView>& leading = run.trainer->leading_weights();
  for (size_t i = 0; i < leading.size(); ++i) {
    for (int64_t j = 0; j < leading[i].size(); ++j) {
      leading[i].as<float>()[j] = 0.01f * static_cast<float>(static_cast<int64_t>(i) + j % 31 - 15);
    }
  }
  run.trainer->RoundWeights();
  const model::NetworkTensors& decoded = run.trainer->DecodedWeights();
  for (size_t i = 0; i < decoded.all.size(); ++i) {
    for (int64_t j = 0; j < decoded.all[i].size(); ++j) {
      const float written = 0.01f * static_cast<float>(static_cast<int64_t>(i) + j % 31 - 15);
      ASSERT_NEAR(decoded.all[i].as<float>()[j], written, std::abs(written) / 16 + 1e-6) << i;
    }
  }
}

// methods/eco.md 2.5: bytes a quantized parameter, gradients excluded.
TEST(CodedTrainingTest, BytesAParameterAreThoseOfTheTable) {
  struct Row {
    Format format;
    Granularity granularity;
    spec::MomentType first, second;
    double scale_bytes;  // a parameter
    double sum;          // of the table, with scale bytes
  };
  constexpr double kCols = 128;
  const Row rows[] = {
      {Format::kE4M3, Granularity::kRow, spec::MomentType::kFp32, spec::MomentType::kFp32, 4 / kCols, 9 + 4 / kCols},
      {Format::kE4M3, Granularity::kRow, spec::MomentType::kBf16, spec::MomentType::kBf16, 4 / kCols, 5 + 4 / kCols},
      {Format::kE4M3, Granularity::kRow, spec::MomentType::kFp32, spec::MomentType::kBf16, 4 / kCols, 7 + 4 / kCols},
      {Format::kInt4, Granularity::kGroup128, spec::MomentType::kFp32, spec::MomentType::kFp32, 2 / kCols, 8.515625},
  };
  for (const Row& row : rows) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      spec::EcoOptions eco = Eco(row.format, row.granularity);
      eco.first_moment = row.first;
      eco.second_moment = row.second;
      TrainerOptions options = TinyTrainerOptions(eco);
      options.dtype = dtype;
      options.config.hidden_size = options.config.intermediate_size = 128;
      options.config.q_heads = options.config.kv_heads = 2;
      options.config.head_dim = 64;
      // One more layer is 7 matrices of 128 x 128 (q, k, v; output; gate, up; down) and two norms of 128.
      const auto bytes = [&](int64_t layers) {
        options.config.layers = layers;
        const kernels::MemoryPlan plan = Trainer::Plan(options);
        return plan.at("weights") + plan.at("moments") + (dtype == DType::kBF16 ? plan.at("master") : 0);
      };
      const int64_t moment_bytes =
          (row.first == spec::MomentType::kFp32 ? 4 : 2) + (row.second == spec::MomentType::kFp32 ? 4 : 2);
      const int64_t norms = 2 * 128 * (moment_bytes + (dtype == DType::kF32 ? 4 : 6));
      const double matrices = 7.0 * 128 * 128;
      EXPECT_EQ(static_cast<double>(bytes(3) - bytes(2) - norms) / matrices, row.sum);
    }
  }
}

TEST(CodedTrainingTest, RefusesWhatTheFormatsDoNotFit) {
  TrainerOptions options = TinyTrainerOptions(Eco(Format::kE4M3, Granularity::kGroup128));
  EXPECT_THAT(Trainer::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("scale_granularity: layers.0.qkv.weight has rows of 32, which groups of 128")));
  options = TinyTrainerOptions(Eco(Format::kInt4, Granularity::kRow));
  options.config.intermediate_size = 65;
  EXPECT_THAT(Trainer::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("layers.0.down.weight has rows of 65; int4")));
  spec::EcoOptions eco = Eco(Format::kE4M3, Granularity::kRow);
  eco.quantize = {"embedding.*", "layer.*"};
  EXPECT_THAT(Trainer::Create(TinyTrainerOptions(eco)),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no pattern matches")));
  // Only what the patterns name.
  eco.quantize = {"*.down.weight", "embedding.*"};
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Trainer> trainer, Trainer::Create(TinyTrainerOptions(eco)));
  int64_t coded = 0;
  for (const TensorView& view : trainer->weights().all) coded += view ? 0 : 1;
  EXPECT_EQ(coded, 2);
}

}  // namespace
}  // namespace trainyard::train
