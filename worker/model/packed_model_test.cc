#include "worker/model/packed_model.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>

#include "absl/strings/str_replace.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/quest_formula.h"
#include "nlohmann/json.hpp"
#include "worker/linear/excluding_scheme.h"
#include "worker/linear/quest_scheme.h"
#include "worker/model/packed_config.h"
#include "worker/model/safetensors.h"
#include "worker/model/testing/test_network.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::TensorView;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TestNetwork;
using testing::ToDoubles;
using Grid = spec::LinearQuest::Grid;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

ModelConfig Config() {
  ModelConfig config;
  config.vocab_size = 61;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.layers = 2;
  config.q_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 16;
  config.max_positions = 64;
  config.qkv_bias = true;
  return config;
}

spec::LinearQuest Quest(Grid weight, int weight_bits, Grid activation, int activation_bits, int hadamard_dim = 32) {
  spec::LinearQuest options;
  options.weight_grid = weight;
  options.weight_bits = weight_bits;
  options.activation_grid = activation;
  options.activation_bits = activation_bits;
  options.hadamard_dim = hadamard_dim;
  return options;
}

// Losses of a batch that is always the same.
std::vector<double> Losses(const ModelConfig& config, const linear::LinearScheme& scheme, const NetworkTensors& weights,
                           DType dtype, kernels::Stream& stream) {
  const NetworkOptions options{.batch = 2, .seq = 24, .dtype = dtype};
  kernels::Arena counting = kernels::Arena::CountOnly();
  Network(config, options, &scheme, &weights, nullptr, counting);
  kernels::Arena arena = *kernels::Arena::Reserve(counting.used_bytes());
  Network network(config, options, &scheme, &weights, nullptr, arena);
  network.Prepare(stream);
  const int64_t rows = network.tokens().size();
  for (const TensorView& ids : {network.tokens(), network.targets()}) {
    const auto random =
        kernels::testing::RandomTokens(rows, config.vocab_size, ids.data() == network.tokens().data() ? 3 : 4);
    std::memcpy(ids.data(), random.as<int32_t>(), static_cast<size_t>(rows) * 4);
  }
  network.Forward(stream);
  return ToDoubles(network.losses());
}

double MeanDistance(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]);
  return sum / static_cast<double>(a.size());
}

// Computes by the trained network's scheme, and by the packed model's the same again, from the same inputs: a code that
// an earlier layer's rounding has moved would otherwise hide or feign differences.
class ComparingScheme final : public linear::LinearScheme {
 public:
  ComparingScheme(const linear::LinearScheme& trained, const PackedModel& packed)
      : trained_(trained), packed_(packed) {}

  absl::string_view name() const override { return "comparing"; }
  int64_t WorkspaceBytes(const linear::LinearSite& site) const override {
    return std::max(trained_.WorkspaceBytes(site), packed_.scheme->WorkspaceBytes(site));
  }
  void Forward(const linear::LinearCall& call, const kernels::LinearForwardArgs& args,
               kernels::Stream& stream) const override {
    trained_.Forward(call, args, stream);
    const kernels::testing::HostTensor y(args.y.dtype(), {args.y.dim(0), args.y.dim(1)});
    const BlockTensors& block = packed_.weights.blocks[call.site.index / 4];
    kernels::LinearForwardArgs same = args;
    same.y = y;
    const TensorView weights[] = {block.qkv, block.output, block.gate_up, block.down};
    const TensorView biases[] = {block.qkv_bias, block.output_bias, {}, {}};
    same.w = weights[call.site.index % 4];
    same.bias = biases[call.site.index % 4];
    packed_.scheme->Forward(call, same, stream);
    const std::vector<double> expected = ToDoubles(args.y), actual = ToDoubles(y);
    double scale = 0;
    for (const double value : expected) scale = std::max(scale, std::abs(value));
    for (size_t i = 0; i < expected.size(); ++i) {
      worst_ = std::max(worst_, std::abs(actual[i] - expected[i]) / scale);
    }
    ++calls_;
  }
  void Backward(const linear::LinearCall&, const linear::LinearBackwardArgs&, kernels::Stream&) const override {}

  double worst() const { return worst_; }
  int calls() const { return calls_; }

 private:
  const linear::LinearScheme& trained_;
  const PackedModel& packed_;
  mutable double worst_ = 0;
  mutable int calls_ = 0;
};

class PackedModelTest : public ::testing::Test {
 protected:
  absl::StatusOr<int64_t> Export(const spec::LinearQuest& options, const std::vector<std::string>& exclude = {}) {
    return ExportPackedModel(test_.config, options, exclude, test_.weights.all,
                             {.directory = dir_.path(), .tokenizer_source = ""}, test_.stream);
  }
  absl::StatusOr<PackedModel> Load(DType dtype = DType::kF32) {
    return LoadPackedModel(dir_.path(), dtype, test_.stream);
  }

  struct Stored {
    SafetensorsTensorSpec spec;
    std::vector<uint8_t> bytes;
  };
  using File = std::map<std::string, Stored>;
  // Writes the weights again with changes.
  void Change(const std::function<void(File&)>& change) {
    const std::string path = dir_.Join("model.safetensors");
    File file;
    {
      ASSERT_OK_AND_ASSIGN(const SafetensorsReader reader, SafetensorsReader::Open(path));
      for (const auto& [name, entry] : reader.entries()) {
        const auto* const begin = static_cast<const uint8_t*>(reader.Data(entry));
        file[name] = {{name, *entry.dtype, entry.shape}, {begin, begin + entry.bytes()}};
      }
    }
    change(file);
    std::vector<SafetensorsTensorSpec> specs;
    std::vector<const void*> data;
    for (auto& [name, stored] : file) {
      stored.spec.name = name;
      specs.push_back(stored.spec);
      data.push_back(stored.bytes.data());
    }
    ASSERT_OK(WriteSafetensors(path, specs, data).status());
  }
  void ChangeConfig(const std::string& from, const std::string& to) {
    ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(dir_.Join("config.json")));
    ASSERT_THAT(text, HasSubstr(from));
    ASSERT_OK(WriteFileAtomic(dir_.Join("config.json"), absl::StrReplaceAll(text, {{from, to}})));
  }

  TestNetwork test_{Config(), {.batch = 2, .seq = 24}};
  TempDir dir_;
};

// The same function as the network that was trained, for every way in which a matrix is kept. Fails if a rotation, a
// bias, the kept pairs or the order of codes in a byte is lost.
TEST_F(PackedModelTest, EveryLayerComputesAsInTheTrainedNetwork) {
  spec::LinearQuest abs_max = Quest(Grid::kInt, 4, Grid::kInt, 4, 0);
  abs_max.projection = spec::LinearQuest::Projection::kAbsMax;
  for (const spec::LinearQuest& options :
       {Quest(Grid::kInt, 4, Grid::kInt, 4), Quest(Grid::kInt, 8, Grid::kInt, 3), Quest(Grid::kInt, 1, Grid::kInt, 1),
        Quest(Grid::kInt, 4, Grid::kInt, 4, 0), Quest(Grid::kInt, 3, Grid::kNone, 4),
        Quest(Grid::kFp4, 4, Grid::kFp4, 4), Quest(Grid::kInt24, 4, Grid::kInt, 4), Quest(Grid::kInt, 5, Grid::kFp4, 4),
        abs_max}) {
    ASSERT_OK(Export(options).status());
    ASSERT_OK_AND_ASSIGN(const PackedModel packed, Load());
    const std::unique_ptr<linear::LinearScheme> trained = linear::MakeQuestScheme(options);
    const ComparingScheme both(*trained, packed);
    Losses(test_.config, both, test_.weights, DType::kF32, test_.stream);
    EXPECT_EQ(both.calls(), 8);
    EXPECT_LT(both.worst(), 1e-6);
    const bool keeps_codes = options.weight_grid == Grid::kInt && options.activation_grid == Grid::kInt;
    EXPECT_EQ(packed.weights.blocks[1].down.data() == nullptr, keeps_codes);
  }
}

// Learned steps travel with the codes: the weights' as those of all rows, the activations' beside each matrix. The
// steps are moved off what calibration gives, so that none can be found again from the weights.
TEST_F(PackedModelTest, LearnedStepsArePartOfTheModel) {
  ModelConfig config = Config();
  config.site_parameters = 2;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Grid activation : {Grid::kInt, Grid::kNone}) {
      spec::LinearQuest options = Quest(Grid::kInt, 4, activation, 5, 32);
      options.projection = spec::LinearQuest::Projection::kLsq;
      options.gradient_mask = spec::LinearQuest::GradientMask::kClip;
      TestNetwork test(config, {.batch = 2, .seq = 24, .dtype = dtype});
      float step = 0.01f;
      for (size_t i = 0; i < test.parameters.size(); ++i) {
        if (!test.parameters[i].belongs_to_scheme) continue;
        Fill({.y = test.weights.all[i].Slice(0, 1), .value = step *= 1.1f}, test.stream);
        Fill({.y = test.weights.all[i].Slice(1, 1), .value = 8 * step}, test.stream);
      }
      ASSERT_OK(ExportPackedModel(config, options, {"layers.0.down"}, test.weights.all,
                                  {.directory = dir_.path(), .tokenizer_source = ""}, test.stream)
                    .status());
      ASSERT_OK_AND_ASSIGN(const PackedModel packed, Load(dtype));
      EXPECT_EQ(packed.options.projection, spec::LinearQuest::Projection::kLsq);
      const auto trained = linear::MakeExcludingScheme(linear::MakeQuestScheme(options), {"layers.0.down"});
      const ComparingScheme both(*trained, packed);
      const std::vector<double> expected = Losses(config, both, test.weights, dtype, test.stream);
      EXPECT_EQ(both.calls(), 8);
      EXPECT_LT(both.worst(), dtype == DType::kF32 ? 1e-6 : 2e-2);
      if (dtype == DType::kBF16) continue;
      EXPECT_LT(MeanDistance(Losses(packed.config, *packed.scheme, packed.weights, dtype, test.stream), expected),
                1e-5);
      const std::string name = "model.layers.1.self_attn.k_proj.weight.activation_step";
      ASSERT_OK_AND_ASSIGN(const SafetensorsReader file, SafetensorsReader::Open(dir_.Join("model.safetensors")));
      EXPECT_EQ(file.Has(name), activation == Grid::kInt);
      if (activation == Grid::kNone) continue;
      Change([&](File& contents) { contents[name].bytes[1] ^= 1; });
      EXPECT_THAT(Load(dtype).status(),
                  StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr(name), HasSubstr("the matrix beside it"))));
      Change([&](File& contents) { contents.erase(name); });
      EXPECT_THAT(Load(dtype).status(), StatusIs(absl::StatusCode::kNotFound, HasSubstr(name)));
    }
  }
}

TEST_F(PackedModelTest, EvaluatesAsTheTrainedNetwork) {
  const spec::LinearQuest options = Quest(Grid::kInt, 4, Grid::kInt, 4);
  ASSERT_OK(Export(options).status());
  const std::vector<double> dense =
      Losses(test_.config, *linear::MakeFp32Scheme(), test_.weights, DType::kF32, test_.stream);
  const std::vector<double> expected =
      Losses(test_.config, *linear::MakeQuestScheme(options), test_.weights, DType::kF32, test_.stream);
  ASSERT_OK_AND_ASSIGN(const PackedModel packed, Load());
  EXPECT_LT(MeanDistance(Losses(packed.config, *packed.scheme, packed.weights, DType::kF32, test_.stream), expected),
            1e-5);
  EXPECT_GT(MeanDistance(dense, expected), 1e-2);
  ASSERT_OK_AND_ASSIGN(const PackedModel rounded, Load(DType::kBF16));
  EXPECT_LT(
      MeanDistance(Losses(rounded.config, *rounded.scheme, rounded.weights, DType::kBF16, test_.stream), expected),
      MeanDistance(dense, expected));
}

TEST_F(PackedModelTest, ExcludedLayersStayFloat) {
  const std::vector<std::string> exclude = {"layers.0.*", "*.down"};
  const spec::LinearQuest options = Quest(Grid::kInt, 4, Grid::kInt, 4);
  ASSERT_OK(Export(options, exclude).status());
  ASSERT_OK_AND_ASSIGN(const PackedModel packed, Load());
  EXPECT_TRUE(packed.weights.blocks[0].qkv);
  EXPECT_FALSE(packed.weights.blocks[1].qkv);
  EXPECT_TRUE(packed.weights.blocks[1].down);
  const auto trained = linear::MakeExcludingScheme(linear::MakeQuestScheme(options), exclude);
  const ComparingScheme both(*trained, packed);
  Losses(test_.config, both, test_.weights, DType::kF32, test_.stream);
  EXPECT_LT(both.worst(), 1e-6);
}

// docs/formats.md read by hand: nibbles, steps and sums of k_proj, rows 64..95 of the fused matrix.
TEST_F(PackedModelTest, FilesAreAsDocumented) {
  ASSERT_OK_AND_ASSIGN(const int64_t bytes, Export(Quest(Grid::kInt, 4, Grid::kInt, 4)));
  EXPECT_LT(bytes, ParameterCount(test_.config) * 4 / 2) << "the embedding is most of it";
  ASSERT_OK_AND_ASSIGN(const SafetensorsReader file, SafetensorsReader::Open(dir_.Join("model.safetensors")));
  const std::string name = "model.layers.1.self_attn.k_proj.weight";
  EXPECT_FALSE(file.Has(name));
  EXPECT_TRUE(file.Has("model.layers.1.self_attn.k_proj.bias"));
  ASSERT_OK_AND_ASSIGN(const TensorView codes, file.Tensor(name + ".codes"));
  ASSERT_OK_AND_ASSIGN(const TensorView steps, file.Tensor(name + ".steps"));
  ASSERT_OK_AND_ASSIGN(const TensorView sums, file.Tensor(name + ".code_sums"));
  EXPECT_EQ(codes.dtype(), DType::kU8);
  ASSERT_EQ(codes.dim(0), 32);
  ASSERT_EQ(codes.dim(1), 32);
  const std::vector<double> qkv = ToDoubles(test_.weights.blocks[1].qkv);
  for (int64_t row = 0; row < 32; ++row) {
    const double* const w = &qkv[static_cast<size_t>((64 + row) * 64)];
    double squares = 0;
    for (int64_t c = 0; c < 64; ++c) squares += w[c] * w[c];
    const double step = 2 * kernels::kQuestClip[4] * std::sqrt(squares / 64) / 15;
    EXPECT_NEAR(steps.as<float>()[row], step, 1e-6 * step);
    int sum = 0;
    for (int64_t c = 0; c < 64; ++c) {
      const uint8_t byte = codes.as<uint8_t>()[row * 32 + c / 2];
      const int nibble = c % 2 == 0 ? byte & 15 : byte >> 4;
      const int code = nibble >= 8 ? nibble - 16 : nibble;
      sum += code;
      double rotated = 0;
      for (int64_t k = 0; k < 32; ++k) {
        const int64_t at = c / 32 * 32 + k;
        rotated +=
            (__builtin_popcountll(static_cast<uint64_t>(c % 32 & k)) % 2 == 0 ? w[at] : -w[at]) / std::sqrt(32.0);
      }
      const double clipped = std::min(std::max(rotated, -7.5 * step), 7.5 * step);
      EXPECT_NEAR((code + 0.5) * step, clipped, 0.5001 * step);
    }
    EXPECT_EQ(sums.as<int32_t>()[row], sum);
  }
  ASSERT_OK_AND_ASSIGN(const std::string text, ReadFile(dir_.Join("config.json")));
  const nlohmann::json section = nlohmann::json::parse(text)["quantization_config"];
  EXPECT_EQ(section["quant_method"], "trainyard_quest");
  EXPECT_EQ(section["version"], 1);
  EXPECT_EQ(section["weight_grid"], "int");
  EXPECT_EQ(section["hadamard_dim"], 32);
}

TEST_F(PackedModelTest, KeptPairsAreStoredForTwoFour) {
  ASSERT_OK(Export(Quest(Grid::kInt24, 4, Grid::kInt, 4)).status());
  ASSERT_OK_AND_ASSIGN(const SafetensorsReader file, SafetensorsReader::Open(dir_.Join("model.safetensors")));
  ASSERT_OK_AND_ASSIGN(const TensorView kept, file.Tensor("model.layers.0.mlp.down_proj.weight.kept"));
  ASSERT_EQ(kept.dim(1), 96 / 8);
  for (int64_t i = 0; i < kept.size(); ++i) EXPECT_EQ(__builtin_popcount(kept.as<uint8_t>()[i]), 4);
  EXPECT_FALSE(file.Has("model.layers.0.mlp.down_proj.weight.code_sums"));
}

TEST_F(PackedModelTest, ConfigsThatAreNotKnownAreRefusedByField) {
  ASSERT_OK(Export(Quest(Grid::kInt, 4, Grid::kInt, 4)).status());
  const auto with = [&](const std::string& from, const std::string& to) {
    ChangeConfig(from, to);
    const absl::Status status = Load().status();
    ChangeConfig(to, from);
    return status;
  };
  EXPECT_THAT(with("\"version\": 1", "\"version\": 2"),
              StatusIs(kInvalid, AllOf(HasSubstr("config.json: quantization_config.version: 2 is not one of 1"))));
  EXPECT_THAT(with("trainyard_quest", "gptq"), StatusIs(kInvalid, HasSubstr("quant_method: \"gptq\" is not known")));
  EXPECT_THAT(with("\"weight_bits\": 4", "\"weight_bits\": 9"), StatusIs(kInvalid, HasSubstr("weight_bits: 9")));
  EXPECT_THAT(with("\"weight_bits\"", "\"bits\""), StatusIs(kInvalid, HasSubstr("weight_bits: is missing")));
  EXPECT_THAT(with("\"weight_grid\": \"int\"", "\"weight_grid\": \"nf4\""),
              StatusIs(kInvalid, HasSubstr("weight_grid: \"nf4\" is not one of none, int, fp4_e2m1, int_2_4")));
  EXPECT_THAT(with("\"activation_grid\": \"int\"", "\"activation_grid\": \"int_2_4\""),
              StatusIs(kInvalid, HasSubstr("for weights only")));
  EXPECT_THAT(with("\"projection\": \"mse_clip\"", "\"projection\": \"pact\""),
              StatusIs(kInvalid, HasSubstr("projection: \"pact\" is not one of mse_clip, abs_max, lsq")));
  EXPECT_THAT(with("\"projection\": \"mse_clip\"", "\"projection\": \"lsq\""),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(".activation_step")));
  EXPECT_THAT(with("\"hadamard_dim\": 32", "\"hadamard_dim\": 24"), StatusIs(kInvalid, HasSubstr("hadamard_dim: 24")));
  EXPECT_THAT(with("\"hadamard_dim\": 32", "\"hadamard_dim\": 64"),
              StatusIs(kInvalid, AllOf(HasSubstr("layers.0.down"), HasSubstr("96 is not a multiple of 64"))));
  EXPECT_THAT(with("\"weight_bits\": 4", "\"weight_bits\": 3"),
              StatusIs(kInvalid, AllOf(HasSubstr(".codes: U8 ("), HasSubstr("but config.json makes it u8 ("))));
  EXPECT_OK(Load());
}

TEST_F(PackedModelTest, DamagedTensorsAreNamed) {
  const std::string matrix = "model.layers.1.mlp.up_proj.weight";
  const auto with = [&](const std::function<void(File&)>& change) {
    EXPECT_OK(Export(Quest(Grid::kInt, 4, Grid::kInt, 4)).status());
    Change(change);
    return Load().status();
  };
  EXPECT_THAT(
      with([&](File& file) { file[matrix + ".codes"].bytes[100] ^= 1; }),
      StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr(matrix), HasSubstr("row 3"), HasSubstr("damaged"))));
  EXPECT_THAT(with([&](File& file) {
                const float nan = std::numeric_limits<float>::quiet_NaN();
                std::memcpy(&file[matrix + ".steps"].bytes[4 * 7], &nan, 4);
              }),
              StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr(matrix + ".steps: row 7"))));
  EXPECT_THAT(with([&](File& file) { file.erase(matrix + ".code_sums"); }),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(matrix + ".code_sums")));
  EXPECT_THAT(with([&](File& file) { file.erase("model.norm.weight"); }),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("model.norm.weight")));
  EXPECT_THAT(with([&](File& file) { file["model.more"] = file["model.norm.weight"]; }),
              StatusIs(kInvalid, HasSubstr("model.more belongs to no part of this network")));
  EXPECT_THAT(with([&](File& file) {
                file[matrix + ".steps"].spec.shape = {96, 1};
              }),
              StatusIs(kInvalid, HasSubstr(matrix + ".steps")));
  ASSERT_OK_AND_ASSIGN(const std::string whole, ReadFile(dir_.Join("model.safetensors")));
  ASSERT_OK(WriteFileAtomic(dir_.Join("model.safetensors"), whole.substr(0, whole.size() - 5)));
  EXPECT_THAT(Load().status(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("cut")));
}

// A job that starts from a folder must not take codes for weights.
TEST_F(PackedModelTest, CodesAreNoPlaceToStartFrom) {
  ASSERT_OK(Export(Quest(Grid::kInt, 4, Grid::kInt, 4)).status());
  EXPECT_THAT(ImportWeights(dir_.path(), test_.config, test_.weights.all, test_.stream),
              StatusIs(kInvalid, AllOf(HasSubstr("quantization_config"), HasSubstr("take the float model"))));
}

}  // namespace
}  // namespace trainyard::model
