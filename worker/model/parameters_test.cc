#include "worker/model/parameters.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/model/testing/reference_network.h"
#include "worker/model/testing/test_network.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::testing::HostTensor;

TEST(ParametersTest, CountsMatchPublishedModels) {
  ModelConfig llama;  // Llama-2 7B: 6,738,415,616
  llama.vocab_size = 32000;
  llama.hidden_size = 4096;
  llama.intermediate_size = 11008;
  llama.layers = llama.q_heads = llama.kv_heads = 32;
  llama.head_dim = 128;
  EXPECT_EQ(ParameterCount(llama), 6738415616);

  ModelConfig qwen;  // Qwen2.5-0.5B: 494,032,768
  qwen.vocab_size = 151936;
  qwen.hidden_size = 896;
  qwen.intermediate_size = 4864;
  qwen.layers = 24;
  qwen.q_heads = 14;
  qwen.kv_heads = 2;
  qwen.head_dim = 64;
  qwen.qkv_bias = qwen.tied_head = true;
  EXPECT_EQ(ParameterCount(qwen), 494032768);
}

TEST(ParametersTest, CountsAreThoseOfTheList) {
  for (ModelConfig config : {testing::TinyLlama(), testing::TinyQwen2(), testing::TinyLlama3(), testing::TinyPruned(),
                             testing::TinyPrunedEnds()}) {
    for (const int64_t site_parameters : {0, 2}) {
      config.site_parameters = site_parameters;
      int64_t sum = 0;
      for (const Parameter& parameter : ListParameters(config)) sum += parameter.size();
      EXPECT_EQ(ParameterCount(config), sum);
    }
  }
}

TEST(ParametersTest, BlocksListWhatTheyHave) {
  std::vector<std::string> names;
  std::vector<std::string> theirs;
  for (const Parameter& parameter : ListParameters(testing::TinyPrunedEnds())) {
    names.push_back(parameter.name);
    for (const HuggingFacePart& part : parameter.parts) theirs.push_back(part.name);
  }
  EXPECT_THAT(names,
              ::testing::ElementsAre("embedding.weight", "layers.1.mlp_norm.weight", "layers.1.gate_up.weight",
                                     "layers.1.down.weight", "layers.2.attention_norm.weight", "layers.2.qkv.weight",
                                     "layers.2.qkv.bias", "layers.2.output.weight", "final_norm.weight"));
  EXPECT_THAT(theirs, ::testing::Contains("model.layers.1.post_attention_layernorm.weight"));
  EXPECT_THAT(theirs, ::testing::Not(::testing::Contains("model.layers.1.input_layernorm.weight")));
}

TEST(ParametersTest, PartsCoverEveryRowOnce) {
  for (const ModelConfig& config :
       {testing::TinyLlama(), testing::TinyQwen2(), testing::TinyLlama3(), testing::TinyPruned()}) {
    for (const Parameter& parameter : ListParameters(config)) {
      int64_t next = 0;
      for (const HuggingFacePart& part : parameter.parts) {
        EXPECT_EQ(part.row_begin, next) << part.name;
        next += part.rows;
      }
      EXPECT_EQ(next, parameter.shape[0]) << parameter.name;
    }
  }
}

TEST(ParametersTest, InitialValuesHaveTheirMomentsAndDependOnSeedTensorAndElementOnly) {
  const ModelConfig config = testing::TinyLlama();
  Parameter matrix = ListParameters(config)[0];
  matrix.shape = {300, 100};
  const auto fill = [&](uint32_t index, uint64_t seed, int threads, DType dtype) {
    Stream stream(threads);
    HostTensor tensor(dtype, {300, 100});
    InitializeParameter(matrix, index, seed, tensor, stream);
    return tensor.ToDoubles();
  };
  const std::vector<double> values = fill(0, 1, 1, DType::kF32);
  EXPECT_EQ(fill(0, 1, 3, DType::kF32), values);
  EXPECT_NE(fill(1, 1, 1, DType::kF32), values);
  EXPECT_NE(fill(0, 2, 1, DType::kF32), values);
  double sum = 0, squares = 0;
  for (const double value : values) {
    sum += value;
    squares += value * value;
  }
  EXPECT_NEAR(sum / 30000, 0, 4 * 0.02 / std::sqrt(30000));
  EXPECT_NEAR(squares / 30000, 0.02 * 0.02, 4 * 0.02 * 0.02 * std::sqrt(2.0 / 30000));
  const std::vector<double> narrow = fill(0, 1, 2, DType::kBF16);
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(narrow[i], kernels::ToFloat(kernels::FromFloat<kernels::BFloat16>(static_cast<float>(values[i]))));
  }
}

TEST(ParametersTest, ResidualProjectionsStartSmallerByDepth) {
  const ModelConfig config = testing::TinyLlama3();
  for (const Parameter& parameter : ListParameters(config)) {
    const bool to_residual = parameter.name.find("output.weight") != std::string::npos ||
                             parameter.name.find("down.weight") != std::string::npos;
    if (!parameter.is_matrix()) continue;
    EXPECT_FLOAT_EQ(parameter.init_std, to_residual ? 0.02f / std::sqrt(6.0f) : 0.02f) << parameter.name;
  }
}

TEST(ParametersTest, GradientsOfALayerAreOneRun) {
  const ModelConfig config = testing::TinyQwen2();
  kernels::Arena arena = *kernels::Arena::Reserve(4 * ParameterCount(config));
  const Gradients gradients = AllocateGradients(config, arena);
  const char* next = static_cast<const char*>(gradients.flat.data());
  for (const kernels::TensorView& tensor : gradients.tensors.all) {
    EXPECT_EQ(tensor.data(), next);
    next += tensor.bytes();
  }
  EXPECT_EQ(gradients.tensors.head.data(), gradients.tensors.embedding.data());
}

}  // namespace
}  // namespace trainyard::model
