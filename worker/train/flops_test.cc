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

TEST(FlopsTest, GemmRateIsThatOfThisWorld) {
  kernels::Stream stream(1);
  const double rate = MeasureGemmRate(stream);
  EXPECT_GT(rate, 1e8);
  EXPECT_LT(rate, 1e14);
}

}  // namespace
}  // namespace trainyard::train
