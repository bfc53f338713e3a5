// Features of single samples on the CUDA device of the build beside the CPU, under the guard of the emulated device
// (worker/train/device_training_test.cc).
#include "kernels/core/device.h"

#include <cmath>
#include <cstdlib>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/tangent/random_direction.h"
#include "worker/influence/gradient_features.h"

namespace trainyard::influence {
namespace {

using kernels::Device;
using kernels::DType;

const Sample kSamples[] = {{{1, 5, 9, 2, 33, 7, 39}, 3}, {{4, 5, 6}, 3}, {{8, 8, 1, 30}, 1}};

// A small network with weights of a size where everything counts, and an optimizer's state.
struct Model {
  explicit Model(Device on) : device(on), stream(on, 1) {
    config.vocab_size = 40;
    config.hidden_size = 16;
    config.intermediate_size = 24;
    config.layers = 2;
    config.q_heads = 2;
    config.kv_heads = 1;
    config.head_dim = 8;
    kernels::Arena counting = kernels::Arena::CountOnly(device);
    Lay(counting);
    absl::StatusOr<kernels::Arena> reserved = kernels::Arena::Reserve(counting);
    TY_CHECK_OK(reserved);
    arena = *std::move(reserved);
    Lay(arena);
    const std::vector<model::Parameter> parameters = ListParameters(config);
    for (size_t i = 0; i < parameters.size(); ++i) {
      InitializeParameter(parameters[i], static_cast<uint32_t>(i), 7, weights.all[i], stream);
      TY_CHECK_OK(stream.Synchronize());
      const int64_t size = weights.all[i].size();
      for (int64_t e = 0; e < size && parameters[i].is_matrix(); ++e) weights.all[i].as<float>()[e] *= 8;
      kernels::FillDirection({.seed = 9, .tensor = static_cast<uint32_t>(i)}, 0, size, state.m[i].as<float>());
      kernels::FillDirection({.seed = 8, .tensor = static_cast<uint32_t>(i)}, 0, size, state.v[i].as<float>());
      for (int64_t e = 0; e < size; ++e) state.v[i].as<float>()[e] *= state.v[i].as<float>()[e];
    }
    state.adam = {.beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-3, .weight_decay = 0, .steps = 4};
  }
  void Lay(kernels::Arena& memory) {
    weights = model::AllocateWeights(config, DType::kF32, "weights", memory);
    gradients = model::AllocateGradients(config, memory);
    state.m.clear();
    state.v.clear();
    for (const kernels::TensorView& weight : weights.all) {
      state.m.push_back(memory.Allocate("moments", DType::kF32, {weight.size()}));
      state.v.push_back(memory.Allocate("moments", DType::kF32, {weight.size()}));
    }
  }
  std::unique_ptr<GradientFeatures> Features(const spec::SelectionGradientOptions& gradient_options) {
    GradientFeatureOptions options;
    options.config = config;
    options.sequence_length = 40;
    options.device = device;
    options.gradients = gradient_options;
    options.seed = 3;
    absl::StatusOr<std::unique_ptr<GradientFeatures>> made =
        GradientFeatures::Create(options, &weights, &gradients.tensors);
    TY_CHECK_OK(made);
    (*made)->SetOptimizerState(state);
    return *std::move(made);
  }

  const Device device;
  kernels::Stream stream;
  model::ModelConfig config;
  kernels::Arena arena = kernels::Arena::CountOnly();
  model::NetworkTensors weights;
  model::Gradients gradients;
  OptimizerState state;
};

class InfluenceDeviceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (kernels::CheckCudaDevice().ok()) setenv("TRAINYARD_SIMT_GUARD", "1", /*overwrite=*/1);
  }
  void SetUp() override {
    if (const absl::Status status = kernels::CheckCudaDevice(); !status.ok()) GTEST_SKIP() << status;
  }
};

TEST_F(InfluenceDeviceTest, FeaturesAreThoseOfTheCpu) {
  Model cpu(Device::kCpu), device(Device::kCuda);
  for (const int64_t mask_elements : {0, 100}) {
    for (const auto projection : {spec::SelectionProjection::kHadamard, spec::SelectionProjection::kRademacher}) {
      spec::SelectionGradientOptions options;
      options.projection = projection;
      options.projection_dim = 64;
      options.mask_elements = mask_elements;
      const std::unique_ptr<GradientFeatures> expected = cpu.Features(options), features = device.Features(options);
      ASSERT_EQ(features->feature_size(), expected->feature_size());
      const auto size = static_cast<size_t>(expected->feature_size());
      for (const Sample& sample : kSamples) {
        for (const auto kind :
             {FeatureKind::kPlain, FeatureKind::kScaled, FeatureKind::kLess, FeatureKind::kLessTarget}) {
          std::vector<float> a(size, 5.0f), b(size, 6.0f), again(size);
          ASSERT_OK_AND_ASSIGN(const double norm, expected->Feature(sample, kind, a.data(), cpu.stream));
          ASSERT_OK_AND_ASSIGN(const double got, features->Feature(sample, kind, b.data(), device.stream));
          EXPECT_NEAR(got, norm, 1e-4 * norm);
          for (size_t i = 0; i < size; ++i) ASSERT_NEAR(b[i], a[i], 2e-4) << i;
          ASSERT_OK(features->Feature(sample, kind, again.data(), device.stream));
          EXPECT_EQ(again, b);
        }
      }
    }
  }
}

TEST_F(InfluenceDeviceTest, GradientsProjectionsAndMovesAreThoseOfTheCpu) {
  Model cpu(Device::kCpu), device(Device::kCuda);
  spec::SelectionGradientOptions options;
  options.projection_dim = 64;
  options.mask_elements = 100;
  std::vector<std::vector<float>> gradients, projections, moved;
  for (Model* const model : {&cpu, &device}) {
    const std::unique_ptr<GradientFeatures> features = model->Features(options);
    std::vector<float> gradient(100), projection(static_cast<size_t>(features->feature_size())), direction(100);
    ASSERT_OK(features->Gradient(kSamples[0], FeatureKind::kScaled, gradient.data(), model->stream));
    ASSERT_OK(features->Project(gradient.data(), projection.data(), model->stream));
    gradients.push_back(gradient);
    projections.push_back(projection);
    kernels::FillDirection({.seed = 4}, 0, 100, direction.data());
    std::vector<uint8_t> before;
    const auto bytes = [&] {
      std::vector<uint8_t> all;
      for (const kernels::TensorView& weight : model->weights.all) {
        const auto* const data = static_cast<uint8_t*>(weight.data());
        all.insert(all.end(), data, data + weight.bytes());
      }
      return all;
    };
    before = bytes();
    ASSERT_OK(features->KeepWeights(model->stream));
    ASSERT_OK(features->MoveWeights(direction.data(), 0.5, model->stream));
    EXPECT_NE(bytes(), before);
    ASSERT_OK(features->Gradient(kSamples[0], FeatureKind::kPlain, gradient.data(), model->stream));
    moved.push_back(gradient);
    ASSERT_OK(features->MoveWeights(direction.data(), 0, model->stream));
    EXPECT_EQ(bytes(), before);
  }
  for (const auto* results : {&gradients, &projections, &moved}) {
    float largest = 0;
    for (const float value : (*results)[0]) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < (*results)[0].size(); ++i) {
      ASSERT_NEAR((*results)[1][i], (*results)[0][i], 2e-4f * largest) << i;
    }
  }
  EXPECT_NE(moved[0], gradients[0]);
}

}  // namespace
}  // namespace trainyard::influence
