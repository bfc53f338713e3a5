#include "worker/influence/gradient_features.h"

#include <cmath>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/tangent/random_direction.h"

namespace trainyard::influence {
namespace {

using kernels::DType;
using ::testing::HasSubstr;

// All of what the patterns choose, unprojected.
spec::SelectionGradientOptions Unprojected() {
  spec::SelectionGradientOptions options;
  options.projection = spec::SelectionProjection::kNone;
  return options;
}

struct Model {
  Model() {
    config.vocab_size = 40;
    config.hidden_size = 16;
    config.intermediate_size = 24;
    config.layers = 2;
    config.q_heads = 2;
    config.kv_heads = 1;
    config.head_dim = 8;
    kernels::Arena counting = kernels::Arena::CountOnly();
    model::AllocateWeights(config, DType::kF32, "weights", counting);
    model::AllocateGradients(config, counting);
    arena = *kernels::Arena::Reserve(counting.used_bytes());
    weights = model::AllocateWeights(config, DType::kF32, "weights", arena);
    gradients = model::AllocateGradients(config, arena);
    const std::vector<model::Parameter> parameters = ListParameters(config);
    for (size_t i = 0; i < parameters.size(); ++i) {
      InitializeParameter(parameters[i], static_cast<uint32_t>(i), 7, weights.all[i], stream);
      for (int64_t e = 0; e < weights.all[i].size() && parameters[i].is_matrix(); ++e)
        weights.all[i].as<float>()[e] *= 8;
    }
  }
  std::unique_ptr<GradientFeatures> Features(const spec::SelectionGradientOptions& gradient_options) {
    GradientFeatureOptions options;
    options.config = config;
    options.sequence_length = 70;
    options.gradients = gradient_options;
    options.seed = 3;
    absl::StatusOr<std::unique_ptr<GradientFeatures>> made =
        GradientFeatures::Create(options, &weights, &gradients.tensors);
    TY_CHECK_OK(made);
    return *std::move(made);
  }

  kernels::Stream stream{1};
  model::ModelConfig config;
  kernels::Arena arena = kernels::Arena::CountOnly();
  model::NetworkTensors weights;
  model::Gradients gradients;
};

const Sample kSample{{1, 5, 9, 2, 33, 7, 39}, 3};

double Inner(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

// The mean loss over the labels, from the chosen elements' point of view: its slope along a random direction is the
// gradient times the direction. The normaliser and the labels are inside.
TEST(GradientFeaturesTest, GradientIsTheSlopeOfTheMeanLossOverTheLabels) {
  Model model;
  const std::unique_ptr<GradientFeatures> features = [&] {
    spec::SelectionGradientOptions options = Unprojected();
    options.parameters = {"*down*", "layers.0.qkv.weight"};
    return model.Features(options);
  }();
  EXPECT_EQ(features->element_count(), 2 * 16 * 24 + 32 * 16);
  std::vector<float> gradient(static_cast<size_t>(features->element_count()));
  ASSERT_OK(features->Gradient(kSample, FeatureKind::kPlain, gradient.data(), model.stream));
  std::vector<float> direction(gradient.size());
  kernels::FillDirection({.seed = 1}, 0, features->element_count(), direction.data());

  // The loss through a network of its own, over exactly the labels.
  const std::unique_ptr<linear::LinearScheme> scheme = linear::MakeFp32Scheme();
  const model::NetworkOptions shape{.batch = 1, .seq = 6};
  kernels::Arena counting = kernels::Arena::CountOnly();
  model::Network(model.config, shape, scheme.get(), &model.weights, nullptr, counting);
  kernels::Arena arena = *kernels::Arena::Reserve(counting.used_bytes());
  model::Network network(model.config, shape, scheme.get(), &model.weights, nullptr, arena);
  network.Prepare(model.stream);
  const auto loss = [&] {
    for (size_t i = 0; i < 6; ++i) {
      network.tokens().as<int32_t>()[i] = kSample.tokens[i];
      network.targets().as<int32_t>()[i] = i >= 2 ? kSample.tokens[i + 1] : -100;
    }
    network.Forward(model.stream);
    double sum = 0;
    for (int i = 0; i < 6; ++i) sum += double{network.losses().as<float>()[i]};
    return sum / 4;
  };
  constexpr double kStep = 1e-3;
  const double before = loss();
  ASSERT_OK(features->KeepWeights(model.stream));
  ASSERT_OK(features->MoveWeights(direction.data(), kStep, model.stream));
  const double above = loss();
  ASSERT_OK(features->MoveWeights(direction.data(), -kStep, model.stream));
  const double below = loss();
  ASSERT_OK(features->MoveWeights(direction.data(), 0, model.stream));
  EXPECT_EQ(loss(), before);
  const double slope = (above - below) / (2 * kStep);
  EXPECT_NEAR(Inner(gradient, direction), slope, 0.01 * std::abs(slope) + 1e-3);
  EXPECT_GT(std::abs(slope), 0.05);
}

TEST(GradientFeaturesTest, FeaturesHaveUnitNormAndKeepTheNormBeside) {
  Model model;
  const std::unique_ptr<GradientFeatures> features = [&] {
    spec::SelectionGradientOptions options;
    options.projection_dim = 1 << 20;
    return model.Features(options);
  }();
  std::vector<float> gradient(static_cast<size_t>(features->element_count()));
  ASSERT_OK(features->Gradient(kSample, FeatureKind::kPlain, gradient.data(), model.stream));
  std::vector<float> feature(static_cast<size_t>(features->feature_size()));
  ASSERT_OK_AND_ASSIGN(const double norm,
                       features->Feature(kSample, FeatureKind::kPlain, feature.data(), model.stream));
  EXPECT_NEAR(norm, std::sqrt(Inner(gradient, gradient)), 1e-6 * norm);
  EXPECT_NEAR(Inner(feature, feature), 1, 1e-5);  // all rows of the transform: norms are kept
}

TEST(GradientFeaturesTest, OptimizersScaleIsAppliedBeforeTheNormalisation) {
  Model model;
  const std::unique_ptr<GradientFeatures> features = model.Features(Unprojected());
  OptimizerState state;
  state.adam = {.beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-6, .weight_decay = 0, .steps = 4};
  std::vector<std::vector<float>> memory;
  for (const kernels::TensorView& weight : model.weights.all) {
    for (int part = 0; part < 2; ++part) {
      std::vector<float> values(static_cast<size_t>(weight.size()));
      kernels::FillDirection({.seed = 9, .tensor = static_cast<uint32_t>(memory.size())}, 0, weight.size(),
                             values.data());
      if (part == 1) {
        for (float& value : values) value *= value;
      }
      memory.push_back(std::move(values));
      (part == 0 ? state.m : state.v).push_back({memory.back().data(), DType::kF32, {weight.size()}});
    }
  }
  features->SetOptimizerState(state);
  const auto size = static_cast<size_t>(features->element_count());
  std::vector<float> gradient(size), scaled(size), less(size);
  ASSERT_OK(features->Gradient(kSample, FeatureKind::kPlain, gradient.data(), model.stream));
  ASSERT_OK_AND_ASSIGN(const double norm,
                       features->Feature(kSample, FeatureKind::kScaled, scaled.data(), model.stream));
  ASSERT_OK(features->Feature(kSample, FeatureKind::kLess, less.data(), model.stream));
  // The first chosen parameter is layers.0.down.weight.
  size_t first = 0;
  while (ListParameters(model.config)[first].name != "layers.0.down.weight") ++first;
  double less_norm = 0;
  std::vector<double> expected_less(size);
  for (size_t i = 0; i < 16 * 24; ++i) {
    const double m = double{state.m[first].as<float>()[i]}, v = double{state.v[first].as<float>()[i]};
    EXPECT_NEAR(double{scaled[i]} * norm, state.adam.GradientScale(v) * double{gradient[i]}, 1e-4 * norm);
    expected_less[i] = state.adam.LessDirection(double{gradient[i]}, m, v);
    less_norm += expected_less[i] * expected_less[i];
  }
  double got = 0, cross = 0;
  for (size_t i = 0; i < 16 * 24; ++i) {
    got += double{less[i]} * double{less[i]};
    cross += double{less[i]} * expected_less[i];
  }
  EXPECT_NEAR(cross / std::sqrt(got * less_norm), 1, 1e-6);  // the same direction
  EXPECT_NEAR(Inner(less, less), 1, 1e-5);
}

TEST(GradientFeaturesTest, AMaskKeepsItsNumberOfElements) {
  Model model;
  const std::unique_ptr<GradientFeatures> all = model.Features(Unprojected());
  const std::unique_ptr<GradientFeatures> some = [&] {
    spec::SelectionGradientOptions options = Unprojected();
    options.mask_elements = 100;
    return model.Features(options);
  }();
  EXPECT_EQ(some->element_count(), 100);
  std::vector<float> whole(static_cast<size_t>(all->element_count())), part(100);
  ASSERT_OK(all->Gradient(kSample, FeatureKind::kPlain, whole.data(), model.stream));
  ASSERT_OK(some->Gradient(kSample, FeatureKind::kPlain, part.data(), model.stream));
  size_t next = 0;  // in order, each once
  for (const float value : part) {
    while (next < whole.size() && whole[next] != value) ++next;
    ASSERT_LT(next, whole.size());
    ++next;
  }
}

TEST(GradientFeaturesTest, SamplesWithoutLabelsHaveNoFeatureAndNoNan) {
  Model model;
  const std::unique_ptr<GradientFeatures> features = model.Features({});
  std::vector<float> feature(static_cast<size_t>(features->feature_size()), 1.0f);
  for (const Sample& sample : {Sample{{}, 1}, Sample{{4}, 1}, Sample{{4, 5, 6}, 3}}) {
    ASSERT_OK_AND_ASSIGN(const double norm,
                         features->Feature(sample, FeatureKind::kPlain, feature.data(), model.stream));
    EXPECT_EQ(norm, 0);
    for (const float value : feature) EXPECT_EQ(value, 0);
  }
}

TEST(GradientFeaturesTest, LongSamplesAreCut) {
  Model model;
  const std::unique_ptr<GradientFeatures> features = model.Features({});
  Sample longer{{}, 1};
  for (int i = 0; i < 90; ++i) longer.tokens.push_back(i % 40);
  Sample cut = longer;
  cut.tokens.resize(71);
  std::vector<float> a(static_cast<size_t>(features->feature_size())), b(a.size());
  ASSERT_OK_AND_ASSIGN(const double of_longer, features->Feature(longer, FeatureKind::kPlain, a.data(), model.stream));
  ASSERT_OK_AND_ASSIGN(const double of_cut, features->Feature(cut, FeatureKind::kPlain, b.data(), model.stream));
  EXPECT_EQ(of_longer, of_cut);
  EXPECT_EQ(a, b);
}

TEST(GradientFeaturesTest, PatternsThatMatchNothingAreRefused) {
  Model model;
  GradientFeatureOptions options;
  options.config = model.config;
  options.sequence_length = 8;
  options.gradients.parameters = {"*down_proj*"};
  EXPECT_THAT(GradientFeatures::Create(options, &model.weights, &model.gradients.tensors).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no parameter of the model matches *down_proj*")));
}

}  // namespace
}  // namespace trainyard::influence
