#include "worker/train/gan_trainer.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/data/images/image_set.h"
#include "worker/data/images/mixture.h"
#include "worker/train/gan_evaluator.h"

namespace trainyard::train {
namespace {

using ::testing::Each;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Le;

GanTrainerOptions MixtureRun() {
  GanTrainerOptions options;
  options.gan.networks = spec::GanMlpOptions{.hidden = 32, .layers = 2};
  options.gan.data = spec::GanMixtureOptions{};
  options.gan.updates = 100;
  options.gan.global_batch = 32;
  options.gan.latent_dim = 4;
  options.sample_shape = {2};
  options.communication.min_elements = 16;
  options.seed = 3;
  return options;
}

spec::GameOptimizerOptions Adam(spec::GameAdamForm form, double lr_d = 1e-3, double lr_g = 1e-3) {
  spec::GameAdamOptions adam;
  adam.form = form;
  adam.lr_d = lr_d;
  adam.lr_g = lr_g;
  return adam;
}

spec::GameOptimizerOptions Qoda(double scale = 0.05) {
  spec::QodaDaOptions qoda;
  qoda.lr_scale = scale;
  return qoda;
}

std::unique_ptr<GanTrainer> Made(const GanTrainerOptions& options) {
  absl::StatusOr<std::unique_ptr<GanTrainer>> trainer = GanTrainer::Create(options);
  TY_CHECK_OK(trainer);
  (*trainer)->Initialize();
  return *std::move(trainer);
}

std::vector<float> Values(const kernels::TensorView& tensor) {
  return {tensor.as<float>(), tensor.as<float>() + tensor.size()};
}

std::vector<float> WeightsOf(const GanTrainer& trainer) {
  std::vector<float> all = Values(trainer.generator().weights());
  const std::vector<float> more = Values(trainer.discriminator().weights());
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::vector<GanStepResult> Steps(GanTrainer& trainer, const data::SampleSource& source, int count) {
  std::vector<GanStepResult> results;
  for (int i = 0; i < count; ++i) {
    absl::StatusOr<GanStepResult> result = trainer.Step(source);
    TY_CHECK_OK(result);
    results.push_back(*result);
  }
  return results;
}

const data::GaussianMixture& Ring() {
  static const auto* const ring = new data::GaussianMixture(data::GaussianMixture::Ring());
  return *ring;
}

// Gradients against differences of the losses that the trainer itself reports: at the same samples, latents and
// interpolations, since those depend on the call alone.
TEST(GanTrainerTest, GradientsAreThoseOfTheTwoLosses) {
  GanTrainerOptions options = MixtureRun();
  options.gan.optimizer = Adam(spec::GameAdamForm::kPlain, 1e-30, 1e-30);  // stays where it is
  const std::unique_ptr<GanTrainer> trainer = Made(options);
  const auto at_call_zero = [&](const std::string& name) -> absl::StatusOr<std::string> { return "0 0 0 0"; };
  const auto losses = [&] {
    TY_CHECK_OK(trainer->RestoreState(at_call_zero));
    return Steps(*trainer, Ring(), 1)[0];
  };
  losses();
  const std::vector<float> generator = Values(trainer->generator().gradients());
  const std::vector<float> discriminator = Values(trainer->discriminator().gradients());
  const auto check = [&](const kernels::TensorView& weights, const std::vector<float>& gradient, double largest,
                         double GanStepResult::*loss) {
    int checked = 0, wrong = 0;
    for (size_t i = 0; i < gradient.size(); i += gradient.size() / 50) {
      constexpr float kStep = 1e-4f;
      float& weight = weights.as<float>()[i];
      const float before = weight;
      weight = before + kStep;
      const double above = losses().*loss;
      weight = before - kStep;
      const double below = losses().*loss;
      weight = before;
      const double difference = (above - below) / (2 * static_cast<double>(kStep));
      wrong += std::abs(difference - static_cast<double>(gradient[i])) < 0.03 * largest ? 0 : 1;
      ++checked;
    }
    EXPECT_GE(checked, 50);
    // The penalty jumps where a unit of the critic switches, so that now and then a difference is none.
    EXPECT_LE(wrong, 2);
  };
  const auto scale = [](const std::vector<float>& gradient) {
    float largest = 0;
    for (const float value : gradient) largest = std::max(largest, std::abs(value));
    return static_cast<double>(largest);
  };
  check(trainer->generator().weights(), generator, scale(generator), &GanStepResult::loss_g);
  check(trainer->discriminator().weights(), discriminator, scale(discriminator), &GanStepResult::loss_d);
}

TEST(GanTrainerTest, AnUpdateIsOneExchangeAndTwoOfExtraAdam) {
  GanTrainerOptions options = MixtureRun();
  const std::pair<spec::GameOptimizerOptions, int> kCases[] = {{Qoda(), 1},
                                                               {Adam(spec::GameAdamForm::kOptimistic), 1},
                                                               {Adam(spec::GameAdamForm::kPlain), 1},
                                                               {Adam(spec::GameAdamForm::kExtra), 2}};
  for (const auto& [optimizer, exchanges] : kCases) {
    options.gan.optimizer = optimizer;
    const std::unique_ptr<GanTrainer> trainer = Made(options);
    for (const GanStepResult& result : Steps(*trainer, Ring(), 3)) EXPECT_EQ(result.exchanges, exchanges);
    EXPECT_EQ(trainer->step(), 3);
    EXPECT_EQ(trainer->oracle_calls(), 3 * exchanges);
  }
}

TEST(GanTrainerTest, ThreadsShowInNoBit) {
  GanTrainerOptions options = MixtureRun();
  options.gan.optimizer = Qoda();
  const std::unique_ptr<GanTrainer> one = Made(options);
  options.threads = 3;
  const std::unique_ptr<GanTrainer> three = Made(options);
  EXPECT_EQ(Steps(*one, Ring(), 4).back().loss_d, Steps(*three, Ring(), 4).back().loss_d);
  EXPECT_EQ(WeightsOf(*one), WeightsOf(*three));
}

// One run of `ranks` ranks in threads; [rank] is done with by `body` when it returns.
void RunRanks(GanTrainerOptions options, int ranks, const std::function<void(int, GanTrainer&)>& body) {
  std::vector<std::unique_ptr<comm::Communicator>> communicators = comm::MakeLocalCommunicators(ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank, own = options]() mutable {
      own.rank = rank;
      own.world_size = ranks;
      const std::unique_ptr<GanTrainer> trainer = Made(own);
      TY_CHECK_OK(trainer->Connect(communicators[static_cast<size_t>(rank)].get()));
      body(rank, *trainer);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

std::vector<std::pair<const char*, spec::GameOptimizerOptions>> AllOptimizers() {
  spec::QodaDaOptions separated;
  separated.lr_rule = spec::StepRule::kSeparated;
  separated.lr_scale = 0.05;
  return {{"qoda_da", Qoda()},
          {"separated", separated},
          {"optimistic_adam", Adam(spec::GameAdamForm::kOptimistic)},
          {"extra_adam", Adam(spec::GameAdamForm::kExtra)}};
}

TEST(GanTrainerTest, RanksStayEqualToTheBitUnderFourBitCodes) {
  for (const auto& [name, optimizer] : AllOptimizers()) {
    GanTrainerOptions options = MixtureRun();
    options.gan.optimizer = optimizer;
    options.communication.codec = spec::MaxminCodec{.bits = 4, .bucket_size = 64};
    std::vector<std::vector<float>> weights(3);
    std::vector<double> losses(3);
    options.gan.global_batch = 30;
    RunRanks(options, 3, [&](int rank, GanTrainer& trainer) {
      losses[static_cast<size_t>(rank)] = Steps(trainer, Ring(), 6).back().loss_d;
      weights[static_cast<size_t>(rank)] = WeightsOf(trainer);
      EXPECT_EQ(trainer.exchange()->stats().steps, trainer.oracle_calls());
      EXPECT_LT(trainer.exchange()->stats().bytes_sent, trainer.exchange()->stats().gradient_bytes);
    });
    EXPECT_EQ(weights[0], weights[1]) << name;
    EXPECT_EQ(weights[0], weights[2]) << name;
    EXPECT_EQ(losses[0], losses[1]) << name;
  }
}

// The same global batch in two halves: equal up to the order of additions.
TEST(GanTrainerTest, TwoRanksSeeTheSamplesOfOne) {
  GanTrainerOptions options = MixtureRun();
  options.gan.optimizer = Adam(spec::GameAdamForm::kOptimistic);
  const std::unique_ptr<GanTrainer> alone = Made(options);
  const std::vector<GanStepResult> expected = Steps(*alone, Ring(), 5);
  RunRanks(options, 2, [&](int, GanTrainer& trainer) {
    const std::vector<GanStepResult> results = Steps(trainer, Ring(), 5);
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_NEAR(results[i].loss_d, expected[i].loss_d, 1e-3 * (1 + std::abs(expected[i].loss_d))) << i;
      EXPECT_NEAR(results[i].loss_g, expected[i].loss_g, 1e-3) << i;
      EXPECT_NEAR(results[i].gradient_penalty, expected[i].gradient_penalty, 1e-3) << i;
    }
  });
}

// Copies what a checkpoint would hold.
struct Saved {
  std::vector<std::vector<float>> tensors, local;
  std::map<std::string, std::string> texts;

  explicit Saved(const GanTrainer& trainer) : texts(trainer.StateTexts()) {
    for (const optim::NamedTensor& tensor : trainer.state()) tensors.push_back(Values(tensor.tensor));
    for (const optim::NamedTensor& tensor : trainer.local_state()) local.push_back(Values(tensor.tensor));
  }
  void Into(GanTrainer& trainer) const {
    const auto copy = [](const std::vector<std::vector<float>>& from, const std::vector<optim::NamedTensor>& to) {
      TY_CHECK_EQ(from.size(), to.size());
      for (size_t i = 0; i < from.size(); ++i) {
        std::memcpy(to[i].tensor.data(), from[i].data(), from[i].size() * sizeof(float));
      }
    };
    copy(tensors, trainer.state());
    copy(local, trainer.local_state());
    TY_CHECK_OK(
        trainer.RestoreState([&](const std::string& name) -> absl::StatusOr<std::string> { return texts.at(name); }));
  }
};

TEST(GanTrainerTest, ResumedRunEqualsUndisturbedRunBitForBit) {
  for (const int ranks : {1, 2}) {
    for (const auto& [name, optimizer] : AllOptimizers()) {
      GanTrainerOptions options = MixtureRun();
      options.gan.optimizer = optimizer;
      options.gan.ergodic_average = true;
      options.gan.ema = 0.9;
      options.communication.codec = spec::MaxminCodec{.bits = 4, .bucket_size = 64};
      std::vector<std::vector<float>> expected(2), averages(2);
      std::vector<std::unique_ptr<Saved>> saved(2);
      const auto finish = [&](GanTrainer& trainer, int rank, std::vector<float>* average) {
        Steps(trainer, Ring(), 3);
        *average = Values(trainer.generator_weights(spec::GeneratorWeights::kAverage));
        const std::vector<float> ema = Values(trainer.generator_weights(spec::GeneratorWeights::kEma));
        average->insert(average->end(), ema.begin(), ema.end());
        return WeightsOf(trainer);
      };
      const auto undisturbed = [&](int rank, GanTrainer& trainer) {
        const auto r = static_cast<size_t>(rank);
        Steps(trainer, Ring(), 4);
        saved[r] = std::make_unique<Saved>(trainer);
        expected[r] = finish(trainer, rank, &averages[r]);
      };
      const auto resumed = [&](int rank, GanTrainer& trainer) {
        const auto r = static_cast<size_t>(rank);
        EXPECT_EQ(trainer.step(), 4);
        std::vector<float> average;
        EXPECT_EQ(finish(trainer, rank, &average), expected[r]) << name << ", " << ranks << " ranks";
        EXPECT_EQ(average, averages[r]) << name;
      };
      if (ranks == 1) {
        const std::unique_ptr<GanTrainer> first = Made(options), second = Made(options);
        undisturbed(0, *first);
        Steps(*second, Ring(), 2);
        saved[0]->Into(*second);
        resumed(0, *second);
        continue;
      }
      RunRanks(options, ranks, undisturbed);
      // The restore comes before the ranks connect.
      std::vector<std::unique_ptr<comm::Communicator>> communicators = comm::MakeLocalCommunicators(ranks);
      std::vector<std::thread> threads;
      for (int rank = 0; rank < ranks; ++rank) {
        threads.emplace_back([&, rank, own = options]() mutable {
          own.rank = rank;
          own.world_size = ranks;
          const std::unique_ptr<GanTrainer> trainer = Made(own);
          saved[static_cast<size_t>(rank)]->Into(*trainer);
          TY_CHECK_OK(trainer->Connect(communicators[static_cast<size_t>(rank)].get()));
          resumed(rank, *trainer);
        });
      }
      for (std::thread& thread : threads) thread.join();
    }
  }
}

TEST(GanTrainerTest, RefusesAStateThatIsNone) {
  const std::unique_ptr<GanTrainer> trainer = Made(MixtureRun());
  for (const char* text : {"", "1 2 3", "1 2 3 x", "1 2 3 -4"}) {
    EXPECT_THAT(trainer->RestoreState([&](const std::string&) -> absl::StatusOr<std::string> { return text; }),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("four counts")));
  }
}

TEST(GanTrainerTest, ClippingBoundsTheCriticAndNotTheGenerator) {
  GanTrainerOptions options = MixtureRun();
  options.gan.gp_lambda = 0;
  options.gan.clip = 0.01;
  const std::unique_ptr<GanTrainer> trainer = Made(options);
  EXPECT_EQ(Steps(*trainer, Ring(), 2).back().gradient_penalty, 0);
  std::vector<float> critic = Values(trainer->discriminator().weights());
  for (float& weight : critic) weight = std::abs(weight);
  EXPECT_THAT(critic, Each(Le(0.01f)));
  float largest = 0;
  for (const float weight : Values(trainer->generator().weights())) largest = std::max(largest, std::abs(weight));
  EXPECT_GT(largest, 0.02f);
}

TEST(GanTrainerTest, AveragesFollowTheirFormulas) {
  GanTrainerOptions options = MixtureRun();
  options.gan.optimizer = Qoda();
  options.gan.ergodic_average = true;
  options.gan.ema = 0.75;
  const std::unique_ptr<GanTrainer> trainer = Made(options);
  std::vector<double> sum(static_cast<size_t>(trainer->generator().parameter_count()));
  std::vector<float> weights = Values(trainer->generator().weights());
  std::vector<double> ema(weights.begin(), weights.end());
  for (int t = 0; t < 5; ++t) {
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(weights[i]);  // where the oracle is asked
    Steps(*trainer, Ring(), 1);
    weights = Values(trainer->generator().weights());
    for (size_t i = 0; i < sum.size(); ++i) ema[i] = 0.75 * ema[i] + 0.25 * static_cast<double>(weights[i]);
  }
  const std::vector<float> average = Values(trainer->generator_weights(spec::GeneratorWeights::kAverage));
  const std::vector<float> moving = Values(trainer->generator_weights(spec::GeneratorWeights::kEma));
  for (size_t i = 0; i < sum.size(); ++i) {
    EXPECT_NEAR(average[i], sum[i] / 5, 1e-5);
    EXPECT_NEAR(moving[i], ema[i], 1e-5);
  }
}

void Poison(GanTrainer& trainer) {
  trainer.discriminator().weights().as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
}

TEST(GanTrainerTest, NanFailsTheStepUnderPolicyFail) {
  const std::unique_ptr<GanTrainer> trainer = Made(MixtureRun());
  Steps(*trainer, Ring(), 2);
  Poison(*trainer);
  EXPECT_THAT(trainer->Step(Ring()), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("step 3: loss_d nan")));
}

TEST(GanTrainerTest, NanDropsUpdatesUnderPolicySkipUntilTenInARow) {
  GanTrainerOptions options = MixtureRun();
  options.gan.nan_policy = spec::NanPolicy::kSkip;
  options.gan.optimizer = Qoda();
  const std::unique_ptr<GanTrainer> trainer = Made(options);
  Steps(*trainer, Ring(), 1);
  const float healthy = trainer->discriminator().weights().as<float>()[0];
  Poison(*trainer);
  const std::vector<float> before = Values(trainer->generator().weights());
  const auto rates = trainer->rates();
  for (const GanStepResult& result : Steps(*trainer, Ring(), 9)) EXPECT_FALSE(result.updated);
  EXPECT_EQ(Values(trainer->generator().weights()), before);
  EXPECT_EQ(trainer->rates(), rates);
  EXPECT_EQ(trainer->step(), 10);
  trainer->discriminator().weights().as<float>()[0] = healthy;
  EXPECT_TRUE(Steps(*trainer, Ring(), 1)[0].updated);
  Poison(*trainer);
  Steps(*trainer, Ring(), 9);
  EXPECT_THAT(trainer->Step(Ring()), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("9 steps before")));
}

// Quantized gradients with a NaN on one rank: both see it, and see it alike.
TEST(GanTrainerTest, NanOfOneRankFailsAllUnderACodec) {
  GanTrainerOptions options = MixtureRun();
  options.communication.codec = spec::MaxminCodec{.bits = 4, .bucket_size = 64};
  RunRanks(options, 2, [&](int rank, GanTrainer& trainer) {
    Steps(trainer, Ring(), 1);
    if (rank == 1) Poison(trainer);
    EXPECT_THAT(trainer.Step(Ring()), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("not finite")));
  });
}

TEST(GanTrainerTest, ImageNetsTrain) {
  data::RawImages raw;
  raw.count = 12;
  raw.channels = 1;
  raw.height = raw.width = 28;
  for (int64_t i = 0; i < raw.count * 28 * 28; ++i) raw.pixels.push_back(static_cast<uint8_t>(i * 37 % 256));
  ASSERT_OK_AND_ASSIGN(const data::ImageSet images, data::ImageSet::Create(raw));
  GanTrainerOptions options = MixtureRun();
  options.gan.global_batch = 4;
  options.sample_shape = images.sample_shape();
  for (const bool is_resnet : {false, true}) {
    options.gan.networks = is_resnet ? spec::GanNetworkOptions(spec::Resnet32Options{.filters = 8})
                                     : spec::GanNetworkOptions(spec::Dcgan32Options{.filters = 8});
    const std::unique_ptr<GanTrainer> trainer = Made(options);
    const std::vector<float> before = WeightsOf(*trainer);
    for (const GanStepResult& result : Steps(*trainer, images, 3)) {
      EXPECT_TRUE(std::isfinite(result.loss_d));
      EXPECT_GT(result.gradient_norm, 0);
    }
    EXPECT_NE(WeightsOf(*trainer), before);
  }
}

TEST(GanTrainerTest, PlanIsWhatIsTaken) {
  const GanTrainerOptions options = MixtureRun();
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<GanTrainer> counting, GanTrainer::CreateCounting(options));
  const std::unique_ptr<GanTrainer> real = Made(options);
  EXPECT_EQ(counting->memory_plan(), real->memory_plan());
  for (const char* purpose : {"weights", "gradients", "moments", "activations", "averages"}) {
    EXPECT_GT(real->memory_plan().at(purpose), 0) << purpose;
  }
}

// 8 Gaussians in the plane (methods/qoda.md, section 5): from a generator that knows one place to one that finds the
// modes, with fp32 and with 4-bit codes alike.
TEST(GanTrainerTest, FindsModesOfTheRing) {
  for (const int bits : {0, 4}) {
    GanTrainerOptions options = MixtureRun();
    options.gan.networks = spec::GanMlpOptions{.hidden = 64, .layers = 2};
    options.gan.global_batch = 128;
    options.gan.gp_lambda = 0.1;
    options.gan.optimizer = Adam(spec::GameAdamForm::kOptimistic, 2e-3, 4e-4);
    options.gan.ema = 0.99;
    options.gan.evaluation_samples = 1024;
    if (bits > 0) options.communication.codec = spec::MaxminCodec{.bits = bits, .bucket_size = 128};
    GanEvaluatorOptions scoring;
    scoring.gan = options.gan;
    scoring.sample_shape = {2};
    const data::GaussianMixture ring = data::GaussianMixture::Ring(1.0, 0.1);
    scoring.centers = ring.centers();
    scoring.mode_radius = 0.3;
    const auto never = []() -> absl::StatusOr<bool> { return false; };
    const auto train = [&](int rank, GanTrainer& trainer) {
      if (rank != 0) {
        Steps(trainer, ring, 1500);
        return;
      }
      absl::StatusOr<std::unique_ptr<GanEvaluator>> evaluator =
          GanEvaluator::Create(scoring, trainer.generator_weights(spec::GeneratorWeights::kEma));
      TY_CHECK_OK(evaluator);
      TY_CHECK_OK((*evaluator)->Prepare(ring, trainer.stream()));
      absl::StatusOr<std::map<std::string, double>> before = (*evaluator)->Evaluate(nullptr, never, trainer.stream());
      Steps(trainer, ring, 1500);
      absl::StatusOr<std::map<std::string, double>> after = (*evaluator)->Evaluate(nullptr, never, trainer.stream());
      TY_CHECK_OK(before);
      TY_CHECK_OK(after);
      std::printf("%d bits: sliced Wasserstein %.3f -> %.3f, modes %g -> %g, of high quality %.3f\n", bits,
                  before->at("sliced_wasserstein"), after->at("sliced_wasserstein"), before->at("modes_covered"),
                  after->at("modes_covered"), after->at("high_quality_fraction"));
      EXPECT_LT(after->at("sliced_wasserstein"), before->at("sliced_wasserstein") / 3);
      EXPECT_EQ(after->at("modes_covered"), 8);
      EXPECT_GT(after->at("high_quality_fraction"), 0.35);
    };
    RunRanks(options, 2, train);
  }
}

}  // namespace
}  // namespace trainyard::train
