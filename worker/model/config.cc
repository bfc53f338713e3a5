#include "worker/model/config.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace trainyard::model {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kPrunedArchitecture[] = "TrainyardPrunedForCausalLM";
constexpr char kPrunedType[] = "trainyard_pruned";

// Reads typed fields of one JSON object; the first problem stays.
class Fields {
 public:
  Fields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  bool Has(const char* name) const { return object_.contains(name) && !object_.at(name).is_null(); }

  int64_t Integer(const char* name, int64_t absent) {
    if (!Has(name)) return absent;
    if (!object_.at(name).is_number_integer()) return Wrong(name, "an integer"), absent;
    return object_.at(name).get<int64_t>();
  }
  int64_t Integer(const char* name) {
    if (!Has(name)) Keep(absl::StrCat(where_, ": ", name, " is missing"));
    return Integer(name, 0);
  }
  double Number(const char* name, double absent) {
    if (!Has(name)) return absent;
    if (!object_.at(name).is_number()) return Wrong(name, "a number"), absent;
    return object_.at(name).get<double>();
  }
  bool Bool(const char* name, bool absent) {
    if (!Has(name)) return absent;
    if (!object_.at(name).is_boolean()) return Wrong(name, "true or false"), absent;
    return object_.at(name).get<bool>();
  }
  std::string Text(const char* name, const std::string& absent) {
    if (!Has(name)) return absent;
    if (!object_.at(name).is_string()) return Wrong(name, "a string"), absent;
    return object_.at(name).get<std::string>();
  }
  // A list of numbers that fit 32 bits, absent: none.
  std::vector<int32_t> Indices(const char* name) {
    std::vector<int32_t> indices;
    if (!Has(name)) return indices;
    if (!object_.at(name).is_array()) return Wrong(name, "a list of integers"), indices;
    for (const Json& index : object_.at(name)) {
      if (!index.is_number_integer() || index.get<int64_t>() < 0 ||
          index.get<int64_t>() > std::numeric_limits<int32_t>::max()) {
        return Wrong(name, "a list of numbers from 0 to 2^31 - 1"), indices;
      }
      indices.push_back(index.get<int32_t>());
    }
    return indices;
  }
  // One id or a list of them.
  std::vector<int64_t> Ids(const char* name) {
    std::vector<int64_t> ids;
    if (!Has(name)) return ids;
    const Json& value = object_.at(name);
    for (const Json& id : value.is_array() ? value : Json::array({value})) {
      if (!id.is_number_integer()) return Wrong(name, "an id or a list of ids"), ids;
      ids.push_back(id.get<int64_t>());
    }
    return ids;
  }

  void Refuse(const char* name, const std::string& why) {
    Keep(absl::StrCat(where_, ": ", name, ": ", object_.at(name).dump(), " ", why));
  }
  const absl::Status& status() const { return status_; }

 private:
  void Wrong(const char* name, const char* expected) { Refuse(name, absl::StrCat("is not ", expected)); }
  void Keep(const std::string& message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(message);
  }

  const Json& object_;
  const std::string where_;
  absl::Status status_;
};

absl::Status ParseRope(const Json& root, const std::string& path, ModelConfig* config) {
  // Before transformers 5: rope_theta and rope_scaling; since then both in rope_parameters.
  const char* const group = root.contains("rope_parameters") ? "rope_parameters" : "rope_scaling";
  if (!root.contains(group) || root.at(group).is_null()) return absl::OkStatus();
  if (!root.at(group).is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", group, " is not an object"));
  }
  Fields rope(root.at(group), absl::StrCat(path, ": ", group));
  config->rope_theta = rope.Number("rope_theta", config->rope_theta);
  const char* const type_name = rope.Has("rope_type") ? "rope_type" : "type";
  const std::string type = rope.Text(type_name, "default");
  if (type == "llama3") {
    config->rope_scaling.factor = rope.Number("factor", 1);
    config->rope_scaling.low_freq_factor = rope.Number("low_freq_factor", 1);
    config->rope_scaling.high_freq_factor = rope.Number("high_freq_factor", 4);
    config->rope_scaling.original_max_positions = rope.Integer("original_max_position_embeddings", 8192);
  } else if (type != "default") {
    rope.Refuse(type_name, "is not supported; expected default or llama3");
  }
  return rope.status();
}

// trainyard_blocks of a pruned model: the sizes of each block.
absl::Status ParseBlocks(const Json& root, const std::string& path, ModelConfig* config) {
  constexpr char kBlocks[] = "trainyard_blocks";
  if (!root.contains(kBlocks) || !root.at(kBlocks).is_array() || root.at(kBlocks).empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", kBlocks, " is not a list of blocks"));
  }
  for (const Json& block : root.at(kBlocks)) {
    const std::string where = absl::StrCat(path, ": ", kBlocks, "[", config->blocks.size(), "]");
    if (!block.is_object()) return absl::InvalidArgumentError(absl::StrCat(where, " is not an object"));
    Fields fields(block, where);
    BlockShape shape;
    shape.q_heads = fields.Integer("q_heads");
    shape.kv_heads = fields.Integer("kv_heads");
    shape.intermediate = fields.Integer("intermediate");
    shape.kv_of_head = fields.Indices("kv_of_head");
    TY_RETURN_IF_ERROR(fields.status());
    config->blocks.push_back(std::move(shape));
  }
  return absl::OkStatus();
}

Json BlocksJson(const std::vector<BlockShape>& blocks) {
  Json list = Json::array();
  for (const BlockShape& block : blocks) {
    list.push_back({{"q_heads", block.q_heads},
                    {"kv_heads", block.kv_heads},
                    {"intermediate", block.intermediate},
                    {"kv_of_head", block.kv_of_head}});
  }
  return list;
}

bool IsRegularMap(const BlockShape& block) {
  if (block.q_heads % block.kv_heads != 0) return false;
  const int64_t group = block.q_heads / block.kv_heads;
  for (size_t head = 0; head < block.kv_of_head.size(); ++head) {
    if (block.kv_of_head[head] != static_cast<int64_t>(head) / group) return false;
  }
  return true;
}

// Problems of one block, each beginning with `name`.
void CheckBlock(const BlockShape& block, const std::string& name, std::vector<std::string>* problems) {
  const auto refuse = [&](const auto&... parts) { problems->push_back(absl::StrCat(name, parts...)); };
  if (block.q_heads < 0) refuse(".q_heads: ", block.q_heads, " is less than 0");
  if (block.intermediate < 0) refuse(".intermediate: ", block.intermediate, " is less than 0");
  if (!block.has_attention()) {
    if (block.kv_heads != 0) refuse(".kv_heads: ", block.kv_heads, " is not 0 in a block without query heads");
    if (!block.kv_of_head.empty()) refuse(".kv_of_head: is not empty in a block without query heads");
    return;
  }
  if (block.kv_heads < 1) {
    refuse(".kv_heads: ", block.kv_heads, " is less than 1");
  } else if (block.kv_of_head.empty() && block.q_heads % block.kv_heads != 0) {
    refuse(".q_heads: ", block.q_heads, " is not a multiple of kv_heads: ", block.kv_heads,
           ", so kv_of_head has to say which each of them reads");
  }
  if (block.kv_of_head.empty()) return;
  if (static_cast<int64_t>(block.kv_of_head.size()) != block.q_heads) {
    refuse(".kv_of_head: has ", block.kv_of_head.size(), " entries for ", block.q_heads, " query heads");
  }
  for (size_t head = 0; head < block.kv_of_head.size(); ++head) {
    const int32_t kv = block.kv_of_head[head];
    if (kv >= 0 && kv < block.kv_heads) continue;
    refuse(".kv_of_head[", head, "]: ", kv, " is not in [0, ", block.kv_heads, ")");
    return;
  }
}

}  // namespace

std::vector<BlockShape> ListBlockShapes(const ModelConfig& config) {
  std::vector<BlockShape> shapes;
  for (int64_t layer = 0; layer < config.layers; ++layer) shapes.push_back(config.block_shape(layer));
  return shapes;
}

ModelConfig Canonical(ModelConfig config) {
  for (BlockShape& block : config.blocks) {
    if (!block.kv_of_head.empty() && IsRegularMap(block)) block.kv_of_head.clear();
  }
  if (config.blocks.empty()) return config;
  const BlockShape first = config.blocks.front();
  if (!first.has_attention() || !first.has_mlp() || !first.kv_of_head.empty()) return config;
  for (const BlockShape& block : config.blocks) {
    if (block != first) return config;
  }
  config.q_heads = first.q_heads;
  config.kv_heads = first.kv_heads;
  config.intermediate_size = first.intermediate;
  config.blocks.clear();
  return config;
}

absl::Status Validate(const ModelConfig& config) {
  std::vector<std::string> problems;
  const auto at_least = [&problems](const char* name, int64_t value, int64_t least) {
    if (value < least) problems.push_back(absl::StrCat(name, ": ", value, " is less than ", least));
  };
  at_least("vocab_size", config.vocab_size, 2);
  at_least("hidden_size", config.hidden_size, 1);
  at_least("intermediate_size", config.intermediate_size, 1);
  at_least("num_hidden_layers", config.layers, 1);
  at_least("num_attention_heads", config.q_heads, 1);
  at_least("num_key_value_heads", config.kv_heads, 1);
  at_least("head_dim", config.head_dim, 2);
  at_least("max_position_embeddings", config.max_positions, 1);
  if (config.head_dim % 2 != 0) problems.push_back(absl::StrCat("head_dim: ", config.head_dim, " is odd"));
  if (config.kv_heads >= 1 && config.q_heads % config.kv_heads != 0) {
    problems.push_back(absl::StrCat("num_attention_heads: ", config.q_heads,
                                    " is not a multiple of num_key_value_heads: ", config.kv_heads));
  }
  if (!config.blocks.empty() && static_cast<int64_t>(config.blocks.size()) != config.layers) {
    problems.push_back(
        absl::StrCat("trainyard_blocks: ", config.blocks.size(), " of num_hidden_layers: ", config.layers, " blocks"));
  }
  for (size_t layer = 0; layer < config.blocks.size(); ++layer) {
    CheckBlock(config.blocks[layer], absl::StrCat("trainyard_blocks[", layer, "]"), &problems);
  }
  if (!(config.rope_theta > 0)) problems.push_back(absl::StrCat("rope_theta: ", config.rope_theta, " is not above 0"));
  if (!(config.norm_eps >= 0)) problems.push_back(absl::StrCat("rms_norm_eps: ", config.norm_eps, " is below 0"));
  if (!(config.rope_scaling.factor >= 1)) {
    problems.push_back(absl::StrCat("rope_scaling.factor: ", config.rope_scaling.factor, " is less than 1"));
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "; "));
}

absl::StatusOr<ModelConfig> ParseConfigJson(const std::string& json, const std::string& path) {
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  Fields fields(root, path);

  const std::string type = fields.Text("model_type", "");
  std::string architecture = type == "qwen2" ? "Qwen2ForCausalLM" : type == "llama" ? "LlamaForCausalLM" : type;
  if (fields.Has("architectures") && root.at("architectures").is_array() && !root.at("architectures").empty() &&
      root.at("architectures")[0].is_string()) {
    architecture = root.at("architectures")[0].get<std::string>();
  }
  // A pruned model says what it was before: the other fields have that class's meaning.
  const bool is_pruned = architecture == kPrunedArchitecture || architecture == kPrunedType;
  if (is_pruned) architecture = fields.Text("trainyard_dense_architecture", "");
  if (architecture != "LlamaForCausalLM" && architecture != "Qwen2ForCausalLM") {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", is_pruned ? "trainyard_dense_architecture" : "architectures", ": \"", architecture,
                     "\" is not supported; expected LlamaForCausalLM or Qwen2ForCausalLM",
                     is_pruned ? "" : absl::StrCat(" or ", kPrunedArchitecture)));
  }
  const bool is_qwen2 = architecture == "Qwen2ForCausalLM";

  ModelConfig config;
  config.vocab_size = fields.Integer("vocab_size");
  config.hidden_size = fields.Integer("hidden_size");
  config.intermediate_size = fields.Integer("intermediate_size");
  config.layers = fields.Integer("num_hidden_layers");
  config.q_heads = fields.Integer("num_attention_heads");
  config.kv_heads = fields.Integer("num_key_value_heads", config.q_heads);
  config.head_dim = fields.Integer("head_dim", config.q_heads > 0 ? config.hidden_size / config.q_heads : 0);
  config.max_positions = fields.Integer("max_position_embeddings", is_qwen2 ? 32768 : 2048);
  config.rope_theta = fields.Number("rope_theta", 10000);
  config.norm_eps = fields.Number("rms_norm_eps", 1e-6);
  config.qkv_bias = is_qwen2 || fields.Bool("attention_bias", false);
  config.output_bias = !is_qwen2 && fields.Bool("attention_bias", false);
  config.tied_head = fields.Bool("tie_word_embeddings", false);
  config.eos_ids = fields.Ids("eos_token_id");
  if (fields.Text("hidden_act", "silu") != "silu") fields.Refuse("hidden_act", "is not supported; expected \"silu\"");
  if (fields.Bool("mlp_bias", false)) fields.Refuse("mlp_bias", "is not supported");
  if (fields.Bool("use_sliding_window", false)) fields.Refuse("use_sliding_window", "is not supported");
  TY_RETURN_IF_ERROR(fields.status());
  TY_RETURN_IF_ERROR(ParseRope(root, path, &config));
  if (is_pruned) TY_RETURN_IF_ERROR(ParseBlocks(root, path, &config));
  TY_RETURN_IF_ERROR(Annotate(Validate(config), path));
  return config;
}

std::string ToConfigJson(const ModelConfig& given, const std::string& dtype) {
  const ModelConfig config = Canonical(given);
  const bool is_qwen2 = config.qkv_bias && !config.output_bias;
  Json root;
  const char* const dense = is_qwen2 ? "Qwen2ForCausalLM" : "LlamaForCausalLM";
  root["architectures"] = Json::array({config.blocks.empty() ? dense : kPrunedArchitecture});
  root["model_type"] = !config.blocks.empty() ? kPrunedType : is_qwen2 ? "qwen2" : "llama";
  if (!config.blocks.empty()) root["trainyard_dense_architecture"] = dense;
  root["vocab_size"] = config.vocab_size;
  root["hidden_size"] = config.hidden_size;
  root["intermediate_size"] = config.intermediate_size;
  root["num_hidden_layers"] = config.layers;
  root["num_attention_heads"] = config.q_heads;
  root["num_key_value_heads"] = config.kv_heads;
  root["head_dim"] = config.head_dim;
  root["hidden_act"] = "silu";
  root["max_position_embeddings"] = config.max_positions;
  root["rms_norm_eps"] = config.norm_eps;
  root["rope_theta"] = config.rope_theta;
  if (config.rope_scaling.factor != 1) {
    root["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", config.rope_scaling.factor},
                            {"low_freq_factor", config.rope_scaling.low_freq_factor},
                            {"high_freq_factor", config.rope_scaling.high_freq_factor},
                            {"original_max_position_embeddings", config.rope_scaling.original_max_positions}};
  } else {
    root["rope_scaling"] = nullptr;
  }
  if (is_qwen2) {
    root["use_sliding_window"] = false;
  } else {
    root["attention_bias"] = config.output_bias;
    root["mlp_bias"] = false;
  }
  root["attention_dropout"] = 0.0;
  root["initializer_range"] = 0.02;
  root["tie_word_embeddings"] = config.tied_head;
  root["use_cache"] = true;
  root["bos_token_id"] = nullptr;
  if (config.eos_ids.empty()) {
    root["eos_token_id"] = nullptr;
  } else if (config.eos_ids.size() == 1) {
    root["eos_token_id"] = config.eos_ids[0];
  } else {
    root["eos_token_id"] = config.eos_ids;
  }
  root["torch_dtype"] = dtype;
  if (!config.blocks.empty()) root["trainyard_blocks"] = BlocksJson(config.blocks);
  return root.dump(2) + "\n";
}

}  // namespace trainyard::model
