#include "worker/model/config.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace trainyard::model {
namespace {

using Json = nlohmann::ordered_json;

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

}  // namespace

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
  if (architecture != "LlamaForCausalLM" && architecture != "Qwen2ForCausalLM") {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": architectures: \"", architecture,
                     "\" is not supported; expected LlamaForCausalLM or Qwen2ForCausalLM"));
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
  TY_RETURN_IF_ERROR(Annotate(Validate(config), path));
  return config;
}

std::string ToConfigJson(const ModelConfig& config, const std::string& dtype) {
  const bool is_qwen2 = config.qkv_bias && !config.output_bias;
  Json root;
  root["architectures"] = Json::array({is_qwen2 ? "Qwen2ForCausalLM" : "LlamaForCausalLM"});
  root["model_type"] = is_qwen2 ? "qwen2" : "llama";
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
  return root.dump(2) + "\n";
}

}  // namespace trainyard::model
