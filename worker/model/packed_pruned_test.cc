// Packed models whose blocks have shapes of their own.
#include <cmath>
#include <cstring>

#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "worker/linear/quest_scheme.h"
#include "worker/model/packed_model.h"
#include "worker/model/testing/test_network.h"

namespace trainyard::model {
namespace {

using Grid = spec::LinearQuest::Grid;

// With the last block's MLP gone the last site's number is not the last one there could be.
ModelConfig Config() {
  ModelConfig config;
  config.vocab_size = 61;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.layers = 4;
  config.q_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.blocks = {{2, 2, 32, {1, 1}}, {0, 0, 64, {}}, {}, {4, 2, 0, {0, 1, 1, 1}}};
  return config;
}

TEST(PackedPrunedTest, ComputesWhatTheTrainedNetworkComputes) {
  for (const Grid activations : {Grid::kInt, Grid::kNone}) {
    spec::LinearQuest options;
    options.weight_grid = Grid::kInt;
    options.activation_grid = activations;
    options.weight_bits = options.activation_bits = 4;
    options.hadamard_dim = 32;
    const std::unique_ptr<linear::LinearScheme> trained = linear::MakeQuestScheme(options);
    testing::TestNetwork test(Config(), {.batch = 2, .seq = 24});
    TempDir dir;
    ASSERT_OK(ExportPackedModel(test.config, options, {}, test.weights.all,
                                {.directory = dir.path(), .tokenizer_source = ""}, test.stream)
                  .status());
    ASSERT_OK_AND_ASSIGN(const PackedModel packed, LoadPackedModel(dir.path(), kernels::DType::kF32, test.stream));
    EXPECT_EQ(packed.config.blocks, test.config.blocks);
    const auto losses = [&](const linear::LinearScheme& scheme, const NetworkTensors& weights) {
      const NetworkOptions network_options{.batch = 2, .seq = 24};
      kernels::Arena counting = kernels::Arena::CountOnly();
      Network(test.config, network_options, &scheme, &weights, nullptr, counting);
      kernels::Arena arena = *kernels::Arena::Reserve(counting.used_bytes());
      Network network(test.config, network_options, &scheme, &weights, nullptr, arena);
      network.Prepare(test.stream);
      std::memcpy(network.tokens().data(), test.network->tokens().data(), 4 * 48);
      std::memcpy(network.targets().data(), test.network->targets().data(), 4 * 48);
      network.Forward(test.stream);
      return testing::ToDoubles(network.losses());
    };
    const std::vector<double> expected = losses(*trained, test.weights);
    const std::vector<double> actual = losses(*packed.scheme, packed.weights);
    double distance = 0;
    for (size_t i = 0; i < expected.size(); ++i) distance += std::abs(actual[i] - expected[i]) / 48;
    // Products are summed in another order, and a code may move by it.
    EXPECT_LT(distance, 0.02);
  }
}

}  // namespace
}  // namespace trainyard::model
