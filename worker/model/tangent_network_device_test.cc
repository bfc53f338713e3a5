// States and tangents on the CUDA device of the build beside the CPU, under the guard of the emulated device
// (worker/train/device_training_test.cc).
#include <cmath>
#include <cstdlib>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/core/device.h"
#include "worker/model/tangent_network.h"

namespace trainyard::model {
namespace {

using kernels::Device;

// Two blocks of different shapes, an irregular map of heads, biases.
ModelConfig Config() {
  ModelConfig config;
  config.vocab_size = 23;
  config.hidden_size = 12;
  config.intermediate_size = 20;
  config.layers = 2;
  config.q_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 4;
  config.max_positions = 64;
  config.qkv_bias = true;
  config.blocks = {{3, 2, 9, {1, 0, 1}}, {4, 2, 20, {}}};
  return config;
}

// A network and its weights on one device.
struct OnDevice {
  OnDevice(Device device, const TangentOptions& options) : stream(device, 1) {
    const ModelConfig config = Config();
    const std::vector<Parameter> parameters = ListParameters(config);
    kernels::Arena counting = kernels::Arena::CountOnly(device);
    for (const Parameter& parameter : parameters) {
      counting.Allocate("weights", kernels::DType::kF32, {parameter.size()});
    }
    absl::StatusOr<kernels::Arena> reserved = kernels::Arena::Reserve(counting);
    TY_CHECK_OK(reserved);
    arena = *std::move(reserved);
    std::vector<const float*> weights;
    for (size_t i = 0; i < parameters.size(); ++i) {
      const int64_t size = parameters[i].size();
      auto* const values = arena.Allocate("weights", kernels::DType::kF32, {size}).as<float>();
      kernels::FillDirection({.seed = 2, .direction = 50, .tensor = static_cast<uint32_t>(i)}, 0, size, values);
      for (int64_t e = 0; e < size; ++e)
        values[e] = parameters[i].is_matrix() ? 0.4f * values[e] : 1 + 0.3f * values[e];
      weights.push_back(values);
    }
    TangentOptions own = options;
    own.device = device;
    network = std::make_unique<TangentNetwork<float>>(config, own, weights);
  }

  kernels::Stream stream;
  kernels::Arena arena = kernels::Arena::CountOnly();
  std::unique_ptr<TangentNetwork<float>> network;
};

class TangentNetworkDeviceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (kernels::CheckCudaDevice().ok()) setenv("TRAINYARD_SIMT_GUARD", "1", /*overwrite=*/1);
  }
  void SetUp() override {
    if (const absl::Status status = kernels::CheckCudaDevice(); !status.ok()) GTEST_SKIP() << status;
  }
};

const std::vector<std::vector<int32_t>> kSequences = {
    {3, 22, 7, 7, 0, 15, 9}, {1}, {}, {4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}};

TEST_F(TangentNetworkDeviceTest, StatesAndTangentsAreThoseOfTheCpu) {
  for (const int64_t tangents : {0, 2}) {
    const TangentOptions options{.blocks = 2, .tangents = tangents, .panel_rows = 8, .max_length = 16};
    OnDevice cpu(Device::kCpu, options), device(Device::kCuda, options);
    const std::vector<std::vector<float>> expected = cpu.network->Run(kSequences, cpu.stream);
    const std::vector<std::vector<float>> states = device.network->Run(kSequences, device.stream);
    ASSERT_EQ(states.size(), expected.size());
    for (size_t s = 0; s < states.size(); ++s) {
      ASSERT_EQ(states[s].size(), expected[s].size());
      double squares = 0, error = 0;
      for (size_t i = 0; i < states[s].size(); ++i) {
        squares += double{expected[s][i]} * double{expected[s][i]};
        error += std::pow(double{states[s][i]} - double{expected[s][i]}, 2);
      }
      EXPECT_LE(std::sqrt(error), 1e-4 * std::sqrt(squares)) << s;
    }
  }
}

// The promise that selection does not depend on how the pool is cut, also when memory grows between calls.
TEST_F(TangentNetworkDeviceTest, ASequenceHasTheSameBitsAloneAndAmongOthers) {
  const TangentOptions options{.blocks = 2, .tangents = 2, .panel_rows = 8, .max_length = 16};
  OnDevice device(Device::kCuda, options);
  std::vector<std::vector<float>> alone;
  for (const std::vector<int32_t>& sequence : kSequences) {
    alone.push_back(device.network->Run({sequence}, device.stream)[0]);
  }
  EXPECT_EQ(device.network->Run(kSequences, device.stream), alone);
  EXPECT_EQ(device.network->Run({kSequences[3]}, device.stream)[0], alone[3]);
}

}  // namespace
}  // namespace trainyard::model
