#include "worker/train/flops.h"

#include "gtest/gtest.h"

namespace trainyard::train {
namespace {

// methods/llmq.md, section 1: 6 P_blk + (6 V C + 6 L C T) of Qwen2.5-0.5B at T = 1024.
TEST(FlopsTest, MatchesTheLlmqFormula) {
  model::ModelConfig config;
  config.vocab_size = 151936;
  config.hidden_size = 896;
  config.intermediate_size = 4864;
  config.layers = 24;
  config.q_heads = 14;
  config.kv_heads = 2;
  config.head_dim = 64;
  const double blocks = 24.0 * 896 * (3 * 4864 + 896 + 64 * (14 + 2 * 2));
  EXPECT_DOUBLE_EQ(FlopsPerToken(config, 1024), 6 * blocks + 6.0 * 151936 * 896 + 6.0 * 24 * 896 * 1024);
}

// A pruned model costs what a dense model of its sizes costs, however its groups are cut.
TEST(FlopsTest, HalfOfEveryBlockCostsWhatAHalfAsWideModelCosts) {
  model::ModelConfig dense;
  dense.vocab_size = 1000;
  dense.hidden_size = 96;
  dense.intermediate_size = 200;
  dense.layers = 4;
  dense.q_heads = 8;
  dense.kv_heads = 4;
  dense.head_dim = 16;
  model::ModelConfig half = dense, ragged = dense;
  half.intermediate_size = 100;
  half.q_heads = 4;
  ragged.blocks.assign(4, {4, 4, 100, {0, 0, 1, 3}});
  EXPECT_DOUBLE_EQ(FlopsPerToken(ragged, 512), FlopsPerToken(half, 512));
  ragged.blocks[2] = {};
  half.layers = 3;
  EXPECT_DOUBLE_EQ(FlopsPerToken(ragged, 512), FlopsPerToken(half, 512));
  ragged.blocks[2] = {0, 0, 100, {}};
  EXPECT_DOUBLE_EQ(FlopsPerToken(ragged, 512), FlopsPerToken(half, 512) + 6.0 * 3 * 96 * 100);
}

TEST(FlopsTest, GemmRateIsThatOfThisWorld) {
  kernels::Stream stream(1);
  const double rate = MeasureGemmRate(stream);
  EXPECT_GT(rate, 1e8);
  EXPECT_LT(rate, 1e14);
}

}  // namespace
}  // namespace trainyard::train
