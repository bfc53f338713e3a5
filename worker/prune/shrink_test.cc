#include "worker/prune/shrink.h"

#include <numeric>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/model/testing/test_network.h"

namespace trainyard::prune {
namespace {

using kernels::DType;
using kernels::testing::HostTensor;
using model::BlockShape;
using model::ModelConfig;
using model::testing::TestNetwork;
using model::testing::ToDoubles;
using ::testing::DoubleNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

ModelConfig Dense(int64_t kv_heads, bool tied, bool biases) {
  ModelConfig config;
  config.vocab_size = 53;
  config.hidden_size = 24;
  config.intermediate_size = 20;
  config.layers = 6;
  config.q_heads = 6;
  config.kv_heads = kv_heads;
  config.head_dim = 4;
  config.tied_head = tied;
  config.qkv_bias = config.output_bias = biases;
  return config;
}

std::vector<int32_t> FirstNumbers(int32_t count) {
  std::vector<int32_t> list(static_cast<size_t>(count));
  std::iota(list.begin(), list.end(), 0);
  return list;
}

// Some heads and channels; all heads; all channels; everything; nothing; and heads 2 and 3, which with three KV heads
// are all that read KV head 1.
std::vector<BlockRemoval> MixedRemovals() {
  return {{{0, 4}, {1, 2, 19}},
          {FirstNumbers(6), {0}},
          {{5}, FirstNumbers(20)},
          {FirstNumbers(6), FirstNumbers(20)},
          {{}, {}},
          {{2, 3}, {7}}};
}

struct Case {
  const char* name;
  ModelConfig config;
  bool prune_kv_heads;
};

class ShrinkTest : public ::testing::TestWithParam<Case> {};

std::vector<double> Logits(TestNetwork& test) {
  const HostTensor logits(DType::kF32, {test.network->tokens().size(), test.config.vocab_size});
  test.network->ForwardLogits(logits, test.stream);
  return logits.ToDoubles();
}

// darwinlm.md, section 5.7. The same for gradients: those of the small network are those of the dense one with zero
// columns, at what is left. Fails if a row, column or bias is taken from another head, a kept head reads another KV
// head, or a removed module still adds something.
TEST_P(ShrinkTest, ComputesWhatTheDenseNetworkWithZeroColumnsComputes) {
  const auto& [name, config, prune_kv_heads] = GetParam();
  const std::vector<BlockRemoval> removals = MixedRemovals();
  const model::NetworkOptions options{.batch = 2, .seq = 11};
  TestNetwork dense(config, options);
  TestNetwork shrunk(ShrunkConfig(config, removals, prune_kv_heads), options);
  ASSERT_OK(Validate(shrunk.config));
  Shrink(config, dense.weights, removals, prune_kv_heads, shrunk.weights, dense.stream);

  const std::vector<double> before = Logits(dense);
  ZeroColumns(config, removals, dense.weights, dense.stream);
  const std::vector<double> expected = Logits(dense);
  EXPECT_THAT(Logits(shrunk), Pointwise(DoubleNear(1e-5), expected));
  double moved = 0;
  for (size_t i = 0; i < before.size(); ++i) moved = std::max(moved, std::abs(before[i] - expected[i]));
  EXPECT_GT(moved, 0.1);

  dense.network->ForwardBackward({.loss_scale = 0.05f}, dense.stream);
  shrunk.network->ForwardBackward({.loss_scale = 0.05f}, shrunk.stream);
  kernels::Arena arena = *kernels::Arena::Reserve(4 * ParameterCount(shrunk.config));
  const model::Gradients taken = AllocateGradients(shrunk.config, arena);
  Shrink(config, dense.gradients.tensors, removals, prune_kv_heads, taken.tensors, dense.stream);
  for (size_t i = 0; i < shrunk.parameters.size(); ++i) {
    EXPECT_THAT(ToDoubles(shrunk.gradients.tensors.all[i]),
                Pointwise(DoubleNear(2e-5), ToDoubles(taken.tensors.all[i])))
        << shrunk.parameters[i].name;
  }
}

TEST_P(ShrinkTest, Bf16TakesTheSameElements) {
  const auto& [name, config, prune_kv_heads] = GetParam();
  const std::vector<BlockRemoval> removals = MixedRemovals();
  const ModelConfig small = ShrunkConfig(config, removals, prune_kv_heads);
  TestNetwork dense(config, {.dtype = DType::kBF16, .threads = 3}), wide(config, {});
  TestNetwork shrunk(small, {.dtype = DType::kBF16}), wide_shrunk(small, {});
  for (size_t i = 0; i < dense.weights.all.size(); ++i) {
    Convert({.x = dense.weights.all[i], .y = wide.weights.all[i]}, dense.stream);
  }
  Shrink(config, dense.weights, removals, prune_kv_heads, shrunk.weights, dense.stream);
  Shrink(config, wide.weights, removals, prune_kv_heads, wide_shrunk.weights, wide.stream);
  EXPECT_EQ(shrunk.WeightValues(), wide_shrunk.WeightValues());
  ZeroColumns(config, removals, dense.weights, dense.stream);
  ZeroColumns(config, removals, wide.weights, wide.stream);
  EXPECT_EQ(dense.WeightValues(), wide.WeightValues());
}

INSTANTIATE_TEST_SUITE_P(All, ShrinkTest,
                         ::testing::Values(Case{"OneKvHeadAHead", Dense(6, false, true), true},
                                           Case{"OneKvHeadAHeadKept", Dense(6, true, false), false},
                                           Case{"Grouped", Dense(3, false, false), true},
                                           Case{"GroupedBiases", Dense(2, true, true), true},
                                           Case{"OneKvHead", Dense(1, false, true), false}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ShrunkConfigTest, GroupsBecomeRaggedAndKeepTheirReaders) {
  const ModelConfig grouped = ShrunkConfig(Dense(3, false, false), MixedRemovals(), true);
  ASSERT_EQ(grouped.blocks.size(), 6u);
  EXPECT_EQ(grouped.blocks[0], (BlockShape{4, 3, 17, {0, 1, 1, 2}}));
  EXPECT_EQ(grouped.blocks[1], (BlockShape{0, 0, 19, {}}));
  EXPECT_EQ(grouped.blocks[2], (BlockShape{5, 3, 0, {0, 0, 1, 1, 2}}));
  EXPECT_EQ(grouped.blocks[3], BlockShape());
  EXPECT_EQ(grouped.blocks[4], (BlockShape{6, 3, 20, {}}));
  EXPECT_EQ(grouped.blocks[5], (BlockShape{4, 3, 19, {0, 0, 2, 2}}));  // KV head 1 has no readers

  const ModelConfig each = ShrunkConfig(Dense(6, false, false), MixedRemovals(), true);
  EXPECT_EQ(each.blocks[0], (BlockShape{4, 4, 17, {}}));
  const ModelConfig kept = ShrunkConfig(Dense(6, false, false), MixedRemovals(), false);
  EXPECT_EQ(kept.blocks[0], (BlockShape{4, 6, 17, {1, 2, 3, 5}}));
}

TEST(ShrunkConfigTest, BlocksThatStayAlikeGiveAPlainConfiguration) {
  // One head of each of three groups, another one in every block, and five channels.
  std::vector<BlockRemoval> removals;
  for (int32_t layer = 0; layer < 6; ++layer) {
    const int32_t odd = layer % 2;
    removals.push_back({{odd, 2 + odd, 5}, {layer, layer + 2, layer + 3, layer + 8, 19}});
  }
  const ModelConfig plain = ShrunkConfig(Dense(3, false, false), removals, true);
  EXPECT_TRUE(plain.blocks.empty());
  EXPECT_EQ(plain.q_heads, 3);
  EXPECT_EQ(plain.kv_heads, 3);
  EXPECT_EQ(plain.intermediate_size, 15);
  const std::string json = ToConfigJson(plain, "float32");
  EXPECT_THAT(json, HasSubstr("LlamaForCausalLM"));
  EXPECT_THAT(json, HasSubstr("\"head_dim\": 4"));
  removals[5].channels.pop_back();
  EXPECT_EQ(ShrunkConfig(Dense(3, false, false), removals, true).blocks.size(), 6u);
}

// Pruning in two steps is pruning at once.
TEST(ShrinkTwiceTest, EqualsTheUnionOfBothRemovals) {
  const ModelConfig config = Dense(2, false, true);
  const auto removals = [](BlockRemoval removal) { return std::vector<BlockRemoval>(6, std::move(removal)); };
  const std::vector<BlockRemoval> first = removals({{0, 4}, {3, 4}});   // of heads 0..5: leaves 1 2 3 5
  const std::vector<BlockRemoval> second = removals({{1, 2}, {0, 3}});  // heads 2 3; channels 0 and 5
  const std::vector<BlockRemoval> both = removals({{0, 2, 3, 4}, {0, 3, 4, 5}});
  TestNetwork dense(config, {});
  TestNetwork once(ShrunkConfig(config, first, true), {});
  TestNetwork twice(ShrunkConfig(once.config, second, true), {});
  TestNetwork at_once(ShrunkConfig(config, both, true), {});
  EXPECT_EQ(ToConfigJson(twice.config, ""), ToConfigJson(at_once.config, ""));
  Shrink(config, dense.weights, first, true, once.weights, dense.stream);
  Shrink(once.config, once.weights, second, true, twice.weights, dense.stream);
  Shrink(config, dense.weights, both, true, at_once.weights, dense.stream);
  EXPECT_EQ(twice.WeightValues(), at_once.WeightValues());
}

TEST(CheckRemovalsTest, NamesBlockAndNumber) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const ModelConfig config = Dense(3, false, false);
  std::vector<BlockRemoval> removals = MixedRemovals();
  EXPECT_OK(CheckRemovals(config, removals));
  removals[2].heads = {5, 6};
  EXPECT_THAT(CheckRemovals(config, removals),
              StatusIs(kInvalid, HasSubstr("block 2: removed heads[1]: 6 is not in [0, 6)")));
  removals[2].heads = {};
  removals[4].channels = {3, 3};
  EXPECT_THAT(CheckRemovals(config, removals),
              StatusIs(kInvalid, HasSubstr("block 4: removed channels[1]: 3 does not come after 3")));
  removals[4].channels = {-1};
  EXPECT_THAT(CheckRemovals(config, removals), StatusIs(kInvalid, HasSubstr("-1 is not in [0, 20)")));
  removals.pop_back();
  EXPECT_THAT(CheckRemovals(config, removals), StatusIs(kInvalid, HasSubstr("5 blocks for a model of 6")));
}

}  // namespace
}  // namespace trainyard::prune
