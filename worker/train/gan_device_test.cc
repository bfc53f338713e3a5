// Training of GANs on the CUDA device of the build beside training on the CPU, under the guard of the emulated device
// (device_training_test.cc).
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/core/arena.h"
#include "kernels/core/device.h"
#include "kernels/core/simt/emulator.h"
#include "worker/data/images/image_set.h"
#include "worker/data/images/mixture.h"
#include "worker/train/gan_evaluator.h"
#include "worker/train/gan_metrics/feature_classifier.h"
#include "worker/train/gan_trainer.h"

namespace trainyard::train {
namespace {

using kernels::Device;

data::RawImages Images() {
  data::RawImages raw;
  raw.count = 12;
  raw.channels = 1;
  raw.height = raw.width = 28;
  for (int64_t i = 0; i < raw.count * 28 * 28; ++i) raw.pixels.push_back(static_cast<uint8_t>(i * 37 % 256));
  return raw;
}

struct GanDeviceCase {
  std::string name;
  spec::GanNetworkOptions networks = spec::GanMlpOptions{.hidden = 16, .layers = 2};
  spec::GameOptimizerOptions optimizer = spec::QodaDaOptions{};
  double gp_lambda = 10;
  double tolerance = 1e-4;  // of losses, the largest of which are near 10
};

class GanDeviceTest : public ::testing::TestWithParam<GanDeviceCase> {
 protected:
  static void SetUpTestSuite() {
    if (!kernels::CheckCudaDevice().ok()) return;
    setenv("TRAINYARD_SIMT_GUARD", "1", /*overwrite=*/1);
  }
  void SetUp() override {
    if (const absl::Status status = kernels::CheckCudaDevice(); !status.ok()) GTEST_SKIP() << status;
    if (std::holds_alternative<spec::GanMlpOptions>(GetParam().networks)) {
      source_ = std::make_unique<data::GaussianMixture>(data::GaussianMixture::Ring());
      return;
    }
    ASSERT_OK_AND_ASSIGN(data::ImageSet images, data::ImageSet::Create(Images()));
    source_ = std::make_unique<data::ImageSet>(std::move(images));
  }

  GanTrainerOptions Options(Device device) const {
    GanTrainerOptions options;
    options.gan.networks = GetParam().networks;
    options.gan.optimizer = GetParam().optimizer;
    options.gan.gp_lambda = GetParam().gp_lambda;
    options.gan.updates = 10;
    options.gan.latent_dim = 4;
    options.gan.global_batch = source_->sample_shape().size() == 1 ? 8 : 2;
    options.gan.ergodic_average = true;
    options.gan.evaluation_samples = 70;  // more than a chunk
    options.gan.sample_count = 4;
    options.sample_shape = source_->sample_shape();
    options.seed = 3;
    options.device = device;
    return options;
  }

  std::unique_ptr<GanTrainer> Made(Device device) const {
    absl::StatusOr<std::unique_ptr<GanTrainer>> trainer = GanTrainer::Create(Options(device));
    TY_CHECK_OK(trainer);
    (*trainer)->Initialize();
    return *std::move(trainer);
  }

  std::vector<double> Steps(GanTrainer& trainer, int count) const {
    std::vector<double> losses;
    for (int i = 0; i < count; ++i) {
      absl::StatusOr<GanStepResult> result = trainer.Step(*source_);
      TY_CHECK_OK(result);
      losses.insert(losses.end(), {result->loss_d, result->loss_g, result->gradient_penalty, result->gradient_norm});
    }
    return losses;
  }

  static void CopyState(const std::vector<optim::NamedTensor>& from, const std::vector<optim::NamedTensor>& to) {
    ASSERT_EQ(from.size(), to.size());
    for (size_t i = 0; i < from.size(); ++i) {
      std::memcpy(to[i].tensor.data(), from[i].tensor.data(), static_cast<size_t>(to[i].tensor.bytes()));
    }
  }

  std::map<std::string, double> Scores(GanTrainer& trainer) const {
    GanEvaluatorOptions options;
    options.gan = trainer.options().gan;
    options.sample_shape = trainer.options().sample_shape;
    options.device = trainer.options().device;
    absl::StatusOr<std::unique_ptr<GanEvaluator>> evaluator =
        GanEvaluator::Create(options, trainer.generator_weights(spec::GeneratorWeights::kEma));
    TY_CHECK_OK(evaluator);
    TY_CHECK_OK((*evaluator)->Prepare(*source_, trainer.stream()));
    absl::StatusOr<std::map<std::string, double>> scores =
        (*evaluator)
            ->Evaluate(
                nullptr, []() -> absl::StatusOr<bool> { return false; }, trainer.stream());
    TY_CHECK_OK(scores);
    return *scores;
  }

  std::unique_ptr<data::SampleSource> source_;
};

TEST_P(GanDeviceTest, LossesAndScoresAreThoseOfTheCpu) {
  const std::unique_ptr<GanTrainer> cpu = Made(Device::kCpu), device = Made(Device::kCuda);
  EXPECT_EQ(cpu->memory_plan(), device->memory_plan());
  const std::vector<double> expected = Steps(*cpu, 3), losses = Steps(*device, 3);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(losses[i], expected[i], GetParam().tolerance) << i;
  const std::map<std::string, double> expected_scores = Scores(*cpu), scores = Scores(*device);
  ASSERT_FALSE(expected_scores.empty());
  for (const auto& [name, value] : expected_scores) {
    ASSERT_EQ(scores.count(name), 1u) << name;
    EXPECT_NEAR(scores.at(name), value, 1e-3) << name;
  }
}

// Neither the order in which an emulated device runs its threads nor a restore shows in a bit.
TEST_P(GanDeviceTest, SameBitsInEveryRun) {
  const std::unique_ptr<GanTrainer> undisturbed = Made(Device::kCuda), first = Made(Device::kCuda);
  const std::vector<double> losses = Steps(*undisturbed, 4);
  simt::SetOrder(simt::Order::kBackward);
  const std::vector<double> begin = Steps(*first, 2);
  simt::SetOrder(simt::Order::kForward);
  const auto middle = losses.begin() + static_cast<std::ptrdiff_t>(begin.size());
  EXPECT_EQ(begin, std::vector<double>(losses.begin(), middle));

  const std::unique_ptr<GanTrainer> resumed = Made(Device::kCuda);
  CopyState(first->state(), resumed->state());
  CopyState(first->local_state(), resumed->local_state());
  const std::map<std::string, std::string> texts = first->StateTexts();
  TY_CHECK_OK(
      resumed->RestoreState([&](const std::string& name) -> absl::StatusOr<std::string> { return texts.at(name); }));
  EXPECT_EQ(Steps(*resumed, 2), std::vector<double>(middle, losses.end()));
}

// The classifier of the Frechet distance: a few steps of it, and its features.
TEST(FeatureClassifierDeviceTest, FeaturesAreThoseOfTheCpu) {
  if (const absl::Status status = kernels::CheckCudaDevice(); !status.ok()) GTEST_SKIP() << status;
  setenv("TRAINYARD_SIMT_GUARD", "1", /*overwrite=*/1);
  data::RawImages raw = Images();
  for (int i = 0; i < raw.count; ++i) raw.labels.push_back(i % 3);
  raw.class_count = 3;
  ASSERT_OK_AND_ASSIGN(const data::ImageSet images, data::ImageSet::Create(raw));
  const FeatureClassifierOptions options = {.features = 8, .batch = 2, .steps = 3};
  std::vector<std::vector<float>> features;
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    kernels::Stream stream(device, 1);
    kernels::Arena counting = kernels::Arena::CountOnly(device);
    const auto allocate = [](kernels::Arena& arena) {
      return std::pair(arena.Allocate("images", kernels::DType::kF32, {3, 1, 32, 32}),
                       arena.Allocate("features", kernels::DType::kF32, {3, 8}));
    };
    allocate(counting);
    ASSERT_OK_AND_ASSIGN(kernels::Arena arena, kernels::Arena::Reserve(counting));
    const auto [in, out] = allocate(arena);
    images.FillReference(0, in);
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<FeatureClassifier> classifier,
                         FeatureClassifier::Train(options, images, stream));
    classifier->Features(in, out, stream);
    features.emplace_back(out.as<float>(), out.as<float>() + out.size());
  }
  for (size_t i = 0; i < features[0].size(); ++i) EXPECT_NEAR(features[1][i], features[0][i], 1e-4) << i;
}

spec::QodaDaOptions Separated() {
  spec::QodaDaOptions options;
  options.lr_rule = spec::StepRule::kSeparated;
  options.lr_scale = 0.02;  // at 1 this small game diverges
  return options;
}

spec::GameAdamOptions Extra() {
  spec::GameAdamOptions options;
  options.form = spec::GameAdamForm::kExtra;
  return options;
}

std::vector<GanDeviceCase> Cases() {
  return {
      {.name = "qoda"},
      {.name = "qoda_separated", .optimizer = Separated()},
      {.name = "extra_adam_clipped", .optimizer = Extra(), .gp_lambda = 0},
      {.name = "resnet", .networks = spec::Resnet32Options{.filters = 2}, .tolerance = 1e-3},
      {.name = "dcgan_optimistic",
       .networks = spec::Dcgan32Options{.filters = 2, .generator_norm = spec::GanNormKind::kBatch},
       .optimizer = spec::GameAdamOptions{},
       .tolerance = 1e-3},
  };
}

INSTANTIATE_TEST_SUITE_P(All, GanDeviceTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace trainyard::train
