#include "worker/comm/layer_types.h"

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/pattern.h"

namespace trainyard::comm {
namespace {

bool IsOneOf(absl::string_view part, std::initializer_list<absl::string_view> words) {
  return std::find(words.begin(), words.end(), part) != words.end();
}

}  // namespace

absl::string_view BuiltInLayerType(absl::string_view parameter) {
  const std::string name = absl::AsciiStrToLower(parameter);
  std::vector<absl::string_view> parts = absl::StrSplit(name, '.');
  if (parts.size() > 1 && IsOneOf(parts.back(), {"weight", "bias"})) parts.pop_back();
  const auto any = [&](const auto& test) { return std::any_of(parts.begin(), parts.end(), test); };
  const auto has = [&](absl::string_view word) {
    return any([&](absl::string_view part) { return absl::StrContains(part, word); });
  };
  const auto is = [&](std::initializer_list<absl::string_view> words) {
    return any([&](absl::string_view part) { return IsOneOf(part, words); });
  };
  if (has("norm") || is({"bn", "ln"})) return "norm";
  if (has("embed") || is({"wte", "wpe"})) return "embedding";
  if (IsOneOf(parts.back(), {"head", "lm_head"})) return "head";
  if (has("attention") || has("attn") || is({"qkv", "q_proj", "k_proj", "v_proj", "o_proj"}) ||
      (parts.back() == "output" && parts.front() == "layers")) {
    return "attention";
  }
  if (has("mlp") || has("ffn") || is({"gate_up", "gate", "up", "down", "gate_proj", "up_proj", "down_proj"})) {
    return "mlp";
  }
  if (has("conv")) return "conv";
  if (has("linear") || has("dense") || has("fc")) return "linear";
  return "other";
}

absl::StatusOr<LayerTypes> AssignLayerTypes(const spec::CommunicationOptions& options,
                                            const std::vector<std::string>& parameters) {
  std::map<std::string, spec::CodecOptions> codecs;
  std::vector<std::string> name_of(parameters.size());
  std::vector<int> uses(options.types.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    const spec::LayerTypeOptions* own = nullptr;
    for (size_t t = 0; t < options.types.size(); ++t) {
      const spec::LayerTypeOptions& type = options.types[t];
      if (type.match.empty() || !MatchesPattern(type.match, parameters[i])) continue;
      ++uses[t];
      if (own != nullptr) {
        return absl::InvalidArgumentError(absl::StrCat("communication.types: parameter ", parameters[i],
                                                       " matches both ", own->name, " (", own->match, ") and ",
                                                       type.name, " (", type.match, ")"));
      }
      own = &type;
    }
    name_of[i] = own != nullptr ? own->name : std::string(BuiltInLayerType(parameters[i]));
    codecs.emplace(name_of[i], options.codec);
  }
  for (size_t t = 0; t < options.types.size(); ++t) {
    const spec::LayerTypeOptions& type = options.types[t];
    if (!type.match.empty() && uses[t] == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "communication.types.", type.name, ".match: '", type.match, "' matches none of the ", parameters.size(),
          " parameters, the first of which is ", parameters.empty() ? "missing" : parameters.front()));
    }
    const auto used = codecs.find(type.name);
    if (used != codecs.end() && type.codec) used->second = *type.codec;
  }
  LayerTypes assigned;
  std::map<std::string, int> index;
  for (auto& [name, codec] : codecs) {
    index.emplace(name, static_cast<int>(assigned.types.size()));
    assigned.types.push_back({name, std::move(codec)});
  }
  for (const std::string& name : name_of) assigned.of_tensor.push_back(index.at(name));
  return assigned;
}

}  // namespace trainyard::comm
