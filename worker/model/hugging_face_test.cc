#include "worker/model/hugging_face.h"

#include <cstring>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/model/safetensors.h"
#include "worker/model/testing/reference_network.h"
#include "worker/model/testing/test_network.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::TensorView;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TestNetwork;
using testing::ToDoubles;

struct Weights {
  Weights(const ModelConfig& config, DType dtype) {
    kernels::Arena counting = kernels::Arena::CountOnly();
    AllocateWeights(config, dtype, "weights", counting);
    arena = std::make_unique<kernels::Arena>(*kernels::Arena::Reserve(counting.used_bytes()));
    tensors = AllocateWeights(config, dtype, "weights", *arena);
  }
  std::unique_ptr<kernels::Arena> arena;
  NetworkTensors tensors;
};

std::vector<std::vector<double>> Values(const NetworkTensors& tensors) {
  std::vector<std::vector<double>> values;
  for (const TensorView& tensor : tensors.all) values.push_back(ToDoubles(tensor));
  return values;
}

TEST(HuggingFaceTest, WhatIsExportedImportsBitForBit) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (ModelConfig config : {testing::TinyLlama(), testing::TinyQwen2(), testing::TinyLlama3(), testing::TinyPruned(),
                               testing::TinyPrunedEnds()}) {
      config.eos_ids = {5, 7};
      TestNetwork test(config, {.dtype = dtype});
      TempDir dir;
      ASSERT_OK_AND_ASSIGN(const int64_t bytes,
                           ExportModel(config, test.weights.all, {.directory = dir.path(), .tokenizer_source = ""}));
      EXPECT_GT(bytes, ParameterCount(config) * (dtype == DType::kF32 ? 4 : 2));
      ASSERT_OK_AND_ASSIGN(const ModelConfig read, ReadConfig(dir.path()));
      EXPECT_EQ(ToConfigJson(read, ""), ToConfigJson(config, ""));
      Weights imported(read, dtype);
      ASSERT_OK(ImportWeights(dir.path(), read, imported.tensors.all, test.stream));
      EXPECT_EQ(Values(imported.tensors), test.WeightValues());
    }
  }
}

TEST(HuggingFaceTest, WritesTheNamesAndShapesOfLlama) {
  const ModelConfig config = testing::TinyQwen2();
  TestNetwork test(config, {});
  TempDir dir;
  ASSERT_OK(ExportModel(config, test.weights.all, {.directory = dir.path(), .tokenizer_source = ""}));
  ASSERT_OK_AND_ASSIGN(const SafetensorsReader file, SafetensorsReader::Open(dir.Join("model.safetensors")));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.entries().size(), 2u + 2 * 12);
  EXPECT_FALSE(file.Has("lm_head.weight"));  // tied
  const std::vector<int64_t> k_shape = {2 * 6, 24};
  EXPECT_EQ(file.entries().at("model.layers.1.self_attn.k_proj.weight").shape, k_shape);
  // Rows of k lie behind those of q.
  ASSERT_OK_AND_ASSIGN(const TensorView k, file.Tensor("model.layers.1.self_attn.k_proj.weight"));
  EXPECT_EQ(ToDoubles(k), ToDoubles(test.weights.blocks[1].qkv.Slice(24, 12)));
  ASSERT_OK_AND_ASSIGN(const TensorView v_bias, file.Tensor("model.layers.0.self_attn.v_proj.bias"));
  EXPECT_EQ(ToDoubles(v_bias), ToDoubles(test.weights.blocks[0].qkv_bias.Slice(36, 12)));
  ASSERT_OK_AND_ASSIGN(const TensorView up, file.Tensor("model.layers.0.mlp.up_proj.weight"));
  EXPECT_EQ(ToDoubles(up), ToDoubles(test.weights.blocks[0].gate_up.Slice(40, 40)));
}

// docs/formats.md: Llama's names, each tensor with the shape its block has, absent where the block has none.
TEST(HuggingFaceTest, WritesPrunedBlocksWithTheirOwnShapes) {
  TestNetwork test(testing::TinyPruned(), {});
  TempDir dir;
  ASSERT_OK(ExportModel(test.config, test.weights.all, {.directory = dir.path(), .tokenizer_source = ""}));
  ASSERT_OK_AND_ASSIGN(const SafetensorsReader file, SafetensorsReader::Open(dir.Join("model.safetensors")));
  using Shape = std::vector<int64_t>;
  const auto shape = [&](const char* name) {
    const auto found = file.entries().find(std::string("model.layers.") + name);
    return found == file.entries().end() ? Shape() : found->second.shape;
  };
  EXPECT_EQ(shape("0.self_attn.q_proj.weight"), (Shape{3 * 6, 24}));
  EXPECT_EQ(shape("0.self_attn.k_proj.weight"), (Shape{2 * 6, 24}));
  EXPECT_EQ(shape("0.self_attn.o_proj.weight"), (Shape{24, 3 * 6}));
  EXPECT_EQ(shape("0.mlp.up_proj.weight"), (Shape{17, 24}));
  EXPECT_EQ(shape("0.mlp.down_proj.weight"), (Shape{24, 17}));
  EXPECT_EQ(shape("1.self_attn.q_proj.weight"), Shape());
  EXPECT_EQ(shape("1.input_layernorm.weight"), Shape());
  EXPECT_EQ(shape("1.post_attention_layernorm.weight"), Shape{24});
  EXPECT_EQ(shape("3.mlp.down_proj.weight"), Shape());
  EXPECT_EQ(shape("3.self_attn.v_proj.bias"), Shape{2 * 6});
  for (const auto& [name, entry] : file.entries()) EXPECT_EQ(name.find("model.layers.2."), std::string::npos) << name;

  // A dense file is refused by the blocks' shapes, and the other way round.
  Weights dense(testing::TinyLlama(), DType::kF32);
  EXPECT_THAT(ImportWeights(dir.path(), testing::TinyLlama(), dense.tensors.all, test.stream),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("config.json makes it")));
}

// The parts of a model as Hugging Face tensors, for files of our own making.
struct Tensors {
  std::vector<SafetensorsTensorSpec> specs;
  std::vector<const void*> data;
};

Tensors PartsOf(const TestNetwork& test) {
  Tensors tensors;
  for (size_t i = 0; i < test.parameters.size(); ++i) {
    for (const HuggingFacePart& part : test.parameters[i].parts) {
      std::vector<int64_t> shape = test.parameters[i].shape;
      shape[0] = part.rows;
      tensors.specs.push_back({part.name, test.weights.all[i].dtype(), shape});
      tensors.data.push_back(test.weights.all[i].Slice(part.row_begin, part.rows).data());
    }
  }
  return tensors;
}

TEST(HuggingFaceTest, ReadsShardsByTheirIndexAndIgnoresTablesOfOldFiles) {
  TestNetwork test(testing::TinyLlama(), {});
  Tensors all = PartsOf(test);
  const float table[3] = {1, 2, 3};
  all.specs.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", DType::kF32, {3}});
  all.data.push_back(table);
  TempDir dir;
  std::string map;
  for (const int shard : {0, 1}) {
    Tensors part;
    const std::string file = absl::StrCat("model-0000", shard + 1, "-of-00002.safetensors");
    for (size_t i = static_cast<size_t>(shard); i < all.specs.size(); i += 2) {
      part.specs.push_back(all.specs[i]);
      part.data.push_back(all.data[i]);
      absl::StrAppend(&map, map.empty() ? "" : ", ", "\"", all.specs[i].name, "\": \"", file, "\"");
    }
    ASSERT_OK(WriteSafetensors(dir.Join(file), part.specs, part.data));
  }
  ASSERT_OK(WriteFileAtomic(dir.Join("model.safetensors.index.json"), absl::StrCat("{\"weight_map\": {", map, "}}")));
  Weights imported(test.config, DType::kF32);
  ASSERT_OK(ImportWeights(dir.path(), test.config, imported.tensors.all, test.stream));
  EXPECT_EQ(Values(imported.tensors), test.WeightValues());

  ASSERT_OK(WriteFileAtomic(dir.Join("model.safetensors.index.json"), R"({"weight_map": {"a": "../b"}})"));
  EXPECT_THAT(ImportWeights(dir.path(), test.config, imported.tensors.all, test.stream),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("name of a file")));
}

TEST(HuggingFaceTest, ConvertsStorage) {
  TestNetwork narrow(testing::TinyLlama(), {.dtype = DType::kBF16});
  TempDir dir;
  ASSERT_OK(ExportModel(narrow.config, narrow.weights.all, {.directory = dir.path(), .tokenizer_source = ""}));
  Weights wide(narrow.config, DType::kF32);
  ASSERT_OK(ImportWeights(dir.path(), narrow.config, wide.tensors.all, narrow.stream));
  EXPECT_EQ(Values(wide.tensors), narrow.WeightValues());

  // Half precision: 0x3C00 is 1, 0xC100 is -2.5.
  Tensors parts = PartsOf(narrow);
  std::vector<uint16_t> halves(static_cast<size_t>(ParameterCount(narrow.config)), 0x3C00);
  halves[1] = 0xC100;
  for (size_t i = 0; i < parts.specs.size(); ++i) {
    parts.specs[i].dtype = DType::kF16;
    parts.data[i] = halves.data();
  }
  ASSERT_OK(WriteSafetensors(dir.Join("model.safetensors"), parts.specs, parts.data));
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Weights imported(narrow.config, dtype);
    ASSERT_OK(ImportWeights(dir.path(), narrow.config, imported.tensors.all, narrow.stream));
    for (const std::vector<double>& values : Values(imported.tensors)) {
      EXPECT_EQ(values[0], 1);
      EXPECT_EQ(values[1], -2.5);
    }
  }
}

TEST(HuggingFaceTest, NamesWhatDoesNotFit) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  TestNetwork test(testing::TinyLlama(), {});
  Weights imported(test.config, DType::kF32);
  const auto import_changed = [&](const std::function<void(Tensors&)>& change) {
    Tensors tensors = PartsOf(test);
    change(tensors);
    TempDir dir;
    TY_CHECK_OK(WriteSafetensors(dir.Join("model.safetensors"), tensors.specs, tensors.data));
    return ImportWeights(dir.path(), test.config, imported.tensors.all, test.stream);
  };
  EXPECT_OK(import_changed([](Tensors&) {}));
  EXPECT_THAT(import_changed([](Tensors& t) { t.specs[3].name = "model.layers.0.self_attn.key"; }),
              StatusIs(kInvalid, HasSubstr("model.layers.0.self_attn.k_proj.weight is missing")));
  EXPECT_THAT(import_changed([](Tensors& t) {
                t.specs[3].shape = {24, 12};
              }),
              StatusIs(kInvalid, HasSubstr("k_proj.weight: shape (24, 12), but config.json makes it (12, 24)")));
  EXPECT_THAT(import_changed([](Tensors& t) { t.specs[3].dtype = DType::kI32; }), StatusIs(kInvalid, HasSubstr("I32")));
  EXPECT_THAT(import_changed([](Tensors& t) {
                t.specs.push_back({"model.layers.0.self_attn.q_norm.weight", DType::kF32, {6}});
                t.data.push_back(t.data[0]);
              }),
              StatusIs(kInvalid, AllOf(HasSubstr("q_norm"), HasSubstr("belongs to no part"))));
}

TEST(HuggingFaceTest, CopiesTheTokenizerAndMakesItFindable) {
  TestNetwork test(testing::TinyLlama(), {});
  TempDir source, dir;
  ASSERT_OK(WriteFileAtomic(source.Join("tokenizer.json"), R"({"added": "<|endoftext|>"})"));
  ASSERT_OK(ExportModel(test.config, test.weights.all, {.directory = dir.path(), .tokenizer_source = source.path()}));
  ASSERT_OK_AND_ASSIGN(const std::string copied, ReadFile(dir.Join("tokenizer.json")));
  EXPECT_EQ(copied, R"({"added": "<|endoftext|>"})");
  ASSERT_OK_AND_ASSIGN(const std::string config, ReadFile(dir.Join("tokenizer_config.json")));
  EXPECT_THAT(config, AllOf(HasSubstr("PreTrainedTokenizerFast"), HasSubstr("<|endoftext|>")));
}

// A model and logits that transformers made (tests/golden/hf_parity.py --fixture): the same logits here.
class GoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTest, LogitsEqualThoseOfTransformers) {
  const std::string folder = absl::StrCat("worker/model/testdata/", GetParam());
  ASSERT_OK_AND_ASSIGN(const ModelConfig config, ReadConfig(folder));
  ASSERT_OK_AND_ASSIGN(const SafetensorsReader expected, SafetensorsReader::Open(folder + "/expected.safetensors"));
  ASSERT_OK_AND_ASSIGN(const TensorView tokens, expected.Tensor("tokens"));
  ASSERT_OK_AND_ASSIGN(const TensorView logits, expected.Tensor("logits"));
  const int64_t rows = tokens.dim(0), seq = tokens.dim(1);
  TestNetwork test(config, {.batch = rows, .seq = seq});
  ASSERT_OK(ImportWeights(folder, config, test.weights.all, test.stream));
  std::memcpy(test.network->tokens().data(), tokens.data(), static_cast<size_t>(tokens.bytes()));
  const kernels::testing::HostTensor actual(DType::kF32, {rows * seq, config.vocab_size});
  test.network->ForwardLogits(actual, test.stream);
  EXPECT_THAT(actual.ToDoubles(), ::testing::Pointwise(::testing::DoubleNear(1e-5), ToDoubles(logits)));
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest, ::testing::Values("tiny-llama", "tiny-qwen2", "tiny-llama3"),
                         [](const auto& info) {
                           std::string name = info.param;
                           name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
                           return name;
                         });

}  // namespace
}  // namespace trainyard::model
