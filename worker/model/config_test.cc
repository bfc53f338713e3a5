#include "worker/model/config.h"

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/model/testing/reference_network.h"

namespace trainyard::model {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// config.json of Llama-3.2-1B, as published.
constexpr char kLlama32[] = R"({
  "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
  "eos_token_id": [128001, 128008], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
  "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false,
  "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
  "pretraining_tp": 1, "rms_norm_eps": 1e-05,
  "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                   "original_max_position_embeddings": 8192, "rope_type": "llama3"},
  "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
  "vocab_size": 128256})";

TEST(ConfigTest, ReadsLlama3) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, ParseConfigJson(kLlama32, "config.json"));
  EXPECT_EQ(config.vocab_size, 128256);
  EXPECT_EQ(config.hidden_size, 2048);
  EXPECT_EQ(config.intermediate_size, 8192);
  EXPECT_EQ(config.layers, 16);
  EXPECT_EQ(config.q_heads, 32);
  EXPECT_EQ(config.kv_heads, 8);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.max_positions, 131072);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_EQ(config.rope_theta, 5e5);
  EXPECT_EQ(config.rope_scaling.factor, 32);
  EXPECT_EQ(config.rope_scaling.original_max_positions, 8192);
  EXPECT_TRUE(config.tied_head);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_THAT(config.eos_ids, ElementsAre(128001, 128008));
}

TEST(ConfigTest, ReadsQwen2WithItsImpliedBias) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, ParseConfigJson(R"({
      "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896,
      "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
      "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768, "use_sliding_window": false,
      "eos_token_id": 151643, "tie_word_embeddings": true})",
                                                                 "config.json"));
  EXPECT_TRUE(config.qkv_bias);
  EXPECT_FALSE(config.output_bias);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.max_positions, 32768);
  EXPECT_THAT(config.eos_ids, ElementsAre(151643));
}

TEST(ConfigTest, ReadsTheRopeParametersOfNewerTransformers) {
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, ParseConfigJson(R"({
      "model_type": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
      "num_attention_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 123.0}})",
                                                                 "config.json"));
  EXPECT_EQ(config.rope_theta, 123);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.rope_scaling.factor, 1);
}

TEST(ConfigTest, WhatIsWrittenReadsBackEqual) {
  for (const ModelConfig& config : {testing::TinyLlama(), testing::TinyQwen2(), testing::TinyLlama3(),
                                    testing::TinyPruned(), testing::TinyPrunedEnds()}) {
    const std::string json = ToConfigJson(config, "float32");
    ASSERT_OK_AND_ASSIGN(const ModelConfig read, ParseConfigJson(json, "config.json"));
    EXPECT_EQ(ToConfigJson(read, "float32"), json);
    EXPECT_EQ(read.qkv_bias, config.qkv_bias);
    EXPECT_EQ(read.output_bias, config.output_bias);
    EXPECT_EQ(read.rope_scaling.factor, config.rope_scaling.factor);
    EXPECT_EQ(read.blocks, config.blocks);
  }
}

TEST(ConfigTest, BlocksThatAreAlikeAreWrittenAsAPlainModel) {
  ModelConfig config = testing::TinyQwen2();
  config.blocks = {{2, 2, 9, {0, 1}}, {2, 2, 9, {}}};  // the first map says what no map says
  const std::string json = ToConfigJson(config, "float32");
  EXPECT_THAT(json, AllOf(HasSubstr("\"Qwen2ForCausalLM\""), HasSubstr("\"head_dim\": 6"),
                          ::testing::Not(HasSubstr("trainyard"))));
  ASSERT_OK_AND_ASSIGN(const ModelConfig read, ParseConfigJson(json, "config.json"));
  EXPECT_TRUE(read.blocks.empty());
  EXPECT_EQ(read.q_heads, 2);
  EXPECT_EQ(read.kv_heads, 2);
  EXPECT_EQ(read.intermediate_size, 9);
  EXPECT_EQ(read.head_dim, 6);

  // What no class of Hugging Face is stays a list of blocks.
  for (const BlockShape& other : {BlockShape{2, 2, 9, {1, 0}}, BlockShape{2, 2, 8, {}}, BlockShape{0, 0, 9, {}},
                                  BlockShape{2, 2, 0, {}}, BlockShape{1, 1, 9, {}}}) {
    config.blocks[0] = other;
    EXPECT_THAT(ToConfigJson(config, ""), HasSubstr("TrainyardPrunedForCausalLM"));
    config.blocks[1] = other;
    EXPECT_EQ(Canonical(config).blocks.empty(), other.has_attention() && other.has_mlp() && other.kv_of_head.empty());
    config.blocks[1] = {2, 2, 9, {}};
  }
}

TEST(ConfigTest, RefusesBlocksThatCannotBe) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const auto parse = [](const std::string& change) {
    std::string json = ToConfigJson(testing::TinyPrunedEnds(), "float32");
    json.insert(json.rfind('}'), ", " + change);
    return ParseConfigJson(json, "some/config.json").status();
  };
  const auto with_block = [&](const std::string& block) {
    return parse("\"trainyard_blocks\": [{\"q_heads\": 4, \"kv_heads\": 2, \"intermediate\": 3}, " + block +
                 ", {\"q_heads\": 0, \"kv_heads\": 0, \"intermediate\": 0}, {\"q_heads\": 0, \"kv_heads\": 0, "
                 "\"intermediate\": 0}]");
  };
  EXPECT_OK(with_block(R"({"q_heads": 1, "kv_heads": 3, "intermediate": 0, "kv_of_head": [2]})"));
  EXPECT_THAT(with_block(R"({"q_heads": 3, "kv_heads": 2, "intermediate": 1})"),
              StatusIs(kInvalid, AllOf(HasSubstr("some/config.json"), HasSubstr("trainyard_blocks[1].q_heads: 3 is not "
                                                                                "a multiple of kv_heads: 2"))));
  EXPECT_THAT(with_block(R"({"q_heads": 3, "kv_heads": 2, "intermediate": 1, "kv_of_head": [0, 1]})"),
              StatusIs(kInvalid, HasSubstr("trainyard_blocks[1].kv_of_head: has 2 entries for 3 query heads")));
  EXPECT_THAT(with_block(R"({"q_heads": 3, "kv_heads": 2, "intermediate": 1, "kv_of_head": [0, 1, 2]})"),
              StatusIs(kInvalid, HasSubstr("trainyard_blocks[1].kv_of_head[2]: 2 is not in [0, 2)")));
  EXPECT_THAT(with_block(R"({"q_heads": 0, "kv_heads": 2, "intermediate": 1})"),
              StatusIs(kInvalid, HasSubstr("trainyard_blocks[1].kv_heads: 2 is not 0")));
  EXPECT_THAT(with_block(R"({"q_heads": 2, "kv_heads": 0, "intermediate": 1})"),
              StatusIs(kInvalid, HasSubstr("trainyard_blocks[1].kv_heads: 0 is less than 1")));
  EXPECT_THAT(with_block(R"({"q_heads": -1, "kv_heads": 0, "intermediate": -2})"),
              StatusIs(kInvalid, AllOf(HasSubstr("q_heads: -1 is less than 0"), HasSubstr("intermediate: -2"))));
  EXPECT_THAT(with_block(R"({"q_heads": 1, "kv_heads": 1, "intermediate": 1, "kv_of_head": [4294967296]})"),
              StatusIs(kInvalid, HasSubstr("trainyard_blocks[1]: kv_of_head: [4294967296] is not a list")));
  EXPECT_THAT(with_block(R"({"q_heads": 1, "intermediate": 1})"),
              StatusIs(kInvalid, HasSubstr("trainyard_blocks[1]: kv_heads is missing")));
  EXPECT_THAT(with_block("7"), StatusIs(kInvalid, HasSubstr("trainyard_blocks[1] is not an object")));
  EXPECT_THAT(parse("\"trainyard_blocks\": []"), StatusIs(kInvalid, HasSubstr("not a list of blocks")));
  EXPECT_THAT(parse(R"("trainyard_blocks": [{"q_heads": 0, "kv_heads": 0, "intermediate": 0}])"),
              StatusIs(kInvalid, HasSubstr("trainyard_blocks: 1 of num_hidden_layers: 4")));
  EXPECT_THAT(parse("\"trainyard_blocks\": 3"), StatusIs(kInvalid, HasSubstr("not a list of blocks")));
  EXPECT_THAT(parse("\"trainyard_dense_architecture\": \"GPT2\""),
              StatusIs(kInvalid, HasSubstr("trainyard_dense_architecture: \"GPT2\"")));
}

absl::Status Parse(const std::string& change) {
  std::string json = kLlama32;
  json.insert(json.rfind('}'), ", " + change);  // the later of two equal keys wins
  return ParseConfigJson(json, "some/config.json").status();
}

TEST(ConfigTest, RefusesWhatTheNetworkIsNot) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Parse(R"("architectures": ["MixtralForCausalLM"])"),
              StatusIs(kInvalid, AllOf(HasSubstr("some/config.json"), HasSubstr("MixtralForCausalLM"))));
  EXPECT_THAT(Parse(R"("hidden_act": "gelu")"), StatusIs(kInvalid, HasSubstr("hidden_act: \"gelu\"")));
  EXPECT_THAT(Parse(R"("mlp_bias": true)"), StatusIs(kInvalid, HasSubstr("mlp_bias")));
  EXPECT_THAT(Parse(R"("use_sliding_window": true)"), StatusIs(kInvalid, HasSubstr("use_sliding_window")));
  EXPECT_THAT(Parse(R"("rope_scaling": {"rope_type": "yarn", "factor": 4})"), StatusIs(kInvalid, HasSubstr("yarn")));
  EXPECT_THAT(Parse(R"("num_key_value_heads": 5)"), StatusIs(kInvalid, HasSubstr("not a multiple")));
  EXPECT_THAT(Parse(R"("hidden_size": "wide")"),
              StatusIs(kInvalid, HasSubstr("hidden_size: \"wide\" is not an integer")));
  EXPECT_THAT(Parse(R"("vocab_size": null)"), StatusIs(kInvalid, HasSubstr("vocab_size is missing")));
  EXPECT_THAT(Parse(R"("head_dim": 63)"), StatusIs(kInvalid, HasSubstr("head_dim: 63 is odd")));
  EXPECT_THAT(ParseConfigJson("[]", "x"), StatusIs(kInvalid, HasSubstr("not a JSON object")));
  EXPECT_THAT(ParseConfigJson("{", "x"), StatusIs(kInvalid, HasSubstr("not a JSON object")));
}

}  // namespace
}  // namespace trainyard::model
