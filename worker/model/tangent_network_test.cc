// Evidence 5 of influence-distillation.md, end to end: 2 blocks in f64 against the central difference over all
// parameters, linearity in the direction, and the values against the network that trains.
#include "worker/model/tangent_network.h"

#include <cmath>

#include "gtest/gtest.h"
#include "kernels/gemm/linear.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/network.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::TensorView;
using Numbers = std::vector<double>;

ModelConfig SmallConfig(bool has_biases) {
  ModelConfig config;
  config.vocab_size = 23;
  config.hidden_size = 12;
  config.intermediate_size = 20;
  config.layers = 2;
  config.q_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 4;
  config.max_positions = 64;
  config.qkv_bias = has_biases;
  config.output_bias = has_biases;
  return config;
}

// Of a size where every term counts.
std::vector<Numbers> RandomWeights(const ModelConfig& config) {
  std::vector<Numbers> weights;
  for (const Parameter& parameter : ListParameters(config)) {
    Numbers values(static_cast<size_t>(parameter.size()));
    kernels::FillDirection({.seed = 2, .direction = 50, .tensor = static_cast<uint32_t>(weights.size())}, 0,
                           parameter.size(), values.data());
    for (double& value : values) value = parameter.is_matrix() ? 0.4 * value : 1 + 0.3 * value;
    weights.push_back(std::move(values));
  }
  return weights;
}

template <typename T>
std::vector<const T*> Pointers(const std::vector<std::vector<T>>& weights) {
  std::vector<const T*> pointers;
  for (const std::vector<T>& values : weights) pointers.push_back(values.data());
  return pointers;
}

Numbers RunOne(const ModelConfig& config, const TangentOptions& options, const std::vector<Numbers>& weights,
               const std::vector<int32_t>& tokens) {
  kernels::Stream stream(1);
  return TangentNetwork<double>(config, options, Pointers(weights)).Run({tokens}, stream)[0];
}

const std::vector<int32_t> kTokens = {3, 22, 7, 7, 0, 15, 9};

TEST(TangentNetworkTest, TangentsAreTheCentralDifference) {
  constexpr double kStep = 1e-5;
  for (const bool has_biases : {false, true}) {
    const ModelConfig config = SmallConfig(has_biases);
    const std::vector<Numbers> weights = RandomWeights(config);
    for (const int64_t blocks : {1, 2}) {
      const TangentOptions options{.blocks = blocks, .tangents = 2, .seed = 5, .panel_rows = 7, .max_length = 16};
      const Numbers both = RunOne(config, options, weights, kTokens);
      const size_t part = both.size() / 3;
      for (uint32_t k = 0; k < 2; ++k) {
        std::vector<Numbers> up = weights, down = weights;
        for (size_t i = 0; i < weights.size(); ++i) {
          Numbers direction(weights[i].size());
          kernels::FillDirection({.seed = 5, .direction = k, .tensor = static_cast<uint32_t>(i)}, 0,
                                 static_cast<int64_t>(direction.size()), direction.data());
          for (size_t e = 0; e < direction.size(); ++e) {
            up[i][e] += kStep * direction[e];
            down[i][e] -= kStep * direction[e];
          }
        }
        TangentOptions values = options;
        values.tangents = 0;
        const Numbers above = RunOne(config, values, up, kTokens), below = RunOne(config, values, down, kTokens);
        ASSERT_EQ(above.size(), part);
        double error = 0, norm = 0;
        for (size_t i = 0; i < part; ++i) {
          const double difference = (above[i] - below[i]) / (2 * kStep);
          error += std::pow(both[(1 + k) * part + i] - difference, 2);
          norm += difference * difference;
        }
        EXPECT_LT(std::sqrt(error / norm), 1e-6) << blocks << " blocks, tangent " << k;
      }
    }
  }
}

// Pruned blocks: no attention in one, an irregular map of heads in the other.
TEST(TangentNetworkTest, BlocksMayDiffer) {
  ModelConfig config = SmallConfig(false);
  config.blocks = {{3, 2, 9, {1, 0, 1}}, {0, 0, 5, {}}};
  const std::vector<Numbers> weights = RandomWeights(config);
  const TangentOptions options{.blocks = 2, .tangents = 1, .seed = 5, .max_length = 16};
  const Numbers both = RunOne(config, options, weights, kTokens);
  constexpr double kStep = 1e-5;
  std::vector<Numbers> up = weights, down = weights;
  for (size_t i = 0; i < weights.size(); ++i) {
    Numbers direction(weights[i].size());
    kernels::FillDirection({.seed = 5, .tensor = static_cast<uint32_t>(i)}, 0, static_cast<int64_t>(direction.size()),
                           direction.data());
    for (size_t e = 0; e < direction.size(); ++e) {
      up[i][e] += kStep * direction[e];
      down[i][e] -= kStep * direction[e];
    }
  }
  TangentOptions values = options;
  values.tangents = 0;
  const Numbers above = RunOne(config, values, up, kTokens), below = RunOne(config, values, down, kTokens);
  double error = 0, norm = 0;
  for (size_t i = 0; i < above.size(); ++i) {
    const double difference = (above[i] - below[i]) / (2 * kStep);
    error += std::pow(both[above.size() + i] - difference, 2);
    norm += difference * difference;
  }
  EXPECT_LT(std::sqrt(error / norm), 1e-6);
}

TEST(TangentNetworkTest, ValuesAreThoseOfTheNetworkThatTrains) {
  const ModelConfig config = SmallConfig(true);
  const std::vector<Numbers> weights = RandomWeights(config);
  const TangentOptions options{.blocks = 2, .max_length = 16};
  const Numbers normed = RunOne(config, options, weights, kTokens);

  const auto length = static_cast<int64_t>(kTokens.size());
  std::vector<std::vector<float>> rounded;
  std::vector<TensorView> views;
  const std::vector<Parameter> parameters = ListParameters(config);
  for (const Numbers& values : weights) rounded.emplace_back(values.begin(), values.end());
  for (size_t i = 0; i < parameters.size(); ++i) {
    views.push_back(parameters[i].is_matrix()
                        ? TensorView(rounded[i].data(), DType::kF32, {parameters[i].shape[0], parameters[i].shape[1]})
                        : TensorView(rounded[i].data(), DType::kF32, {parameters[i].shape[0]}));
  }
  const NetworkTensors tensors = BindTensors(config, views);
  const std::unique_ptr<linear::LinearScheme> scheme = linear::MakeFp32Scheme();
  kernels::Arena counting = kernels::Arena::CountOnly();
  Network(config, {.batch = 1, .seq = length}, scheme.get(), &tensors, nullptr, counting);
  absl::StatusOr<kernels::Arena> arena = kernels::Arena::Reserve(counting.used_bytes());
  TY_CHECK_OK(arena);
  Network network(config, {.batch = 1, .seq = length}, scheme.get(), &tensors, nullptr, *arena);
  kernels::Stream stream(1);
  network.Prepare(stream);
  std::copy(kTokens.begin(), kTokens.end(), network.tokens().as<int32_t>());
  std::vector<float> logits(static_cast<size_t>(length * config.vocab_size));
  network.ForwardLogits({logits.data(), DType::kF32, {length, config.vocab_size}}, stream);
  for (int64_t row = 0; row < length; ++row) {
    for (int64_t v = 0; v < config.vocab_size; ++v) {
      double expected = 0;
      for (int64_t c = 0; c < config.hidden_size; ++c) {
        expected += normed[static_cast<size_t>(row * config.hidden_size + c)] *
                    weights.back()[static_cast<size_t>(v * config.hidden_size + c)];
      }
      EXPECT_NEAR(double{logits[static_cast<size_t>(row * config.vocab_size + v)]}, expected, 2e-4);
    }
  }
}

// The promise that selection does not depend on how the pool is cut.
TEST(TangentNetworkTest, ASequenceHasTheSameBitsAloneAndAmongOthers) {
  const ModelConfig config = SmallConfig(false);
  std::vector<std::vector<float>> weights;
  for (const Numbers& values : RandomWeights(config)) weights.emplace_back(values.begin(), values.end());
  std::vector<std::vector<int32_t>> sequences = {kTokens, {1}, {}, {4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, kTokens};
  kernels::Stream one(1), three(3);
  TangentOptions options{.blocks = 2, .tangents = 2, .max_length = 16};
  TangentNetwork<float> network(config, options, Pointers(weights));
  const std::vector<std::vector<float>> together = network.Run(sequences, three);
  EXPECT_TRUE(together[2].empty());
  EXPECT_EQ(together[0], together[4]);
  for (size_t i = 0; i < sequences.size(); ++i) EXPECT_EQ(network.Run({sequences[i]}, one)[0], together[i]);
  // Padding: what comes after the last token changes nothing before it.
  std::vector<int32_t> longer = kTokens;
  longer.push_back(1);
  const std::vector<float> padded = network.Run({longer}, one)[0];
  const size_t width = static_cast<size_t>(config.hidden_size), last = (kTokens.size() - 1) * width;
  for (size_t c = 0; c < width; ++c) EXPECT_NEAR(padded[last + c], together[0][last + c], 1e-4f);
}

}  // namespace
}  // namespace trainyard::model
