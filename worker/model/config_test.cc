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
  for (const ModelConfig& config : {testing::TinyLlama(), testing::TinyQwen2(), testing::TinyLlama3()}) {
    const std::string json = ToConfigJson(config, "float32");
    ASSERT_OK_AND_ASSIGN(const ModelConfig read, ParseConfigJson(json, "config.json"));
    EXPECT_EQ(ToConfigJson(read, "float32"), json);
    EXPECT_EQ(read.qkv_bias, config.qkv_bias);
    EXPECT_EQ(read.output_bias, config.output_bias);
    EXPECT_EQ(read.rope_scaling.factor, config.rope_scaling.factor);
  }
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
