#include "proto/spec/model_presets.h"

#include <iterator>

namespace trainyard::spec {
namespace {

struct Preset {
  const char* name;
  LlamaShape shape;
};

// Columns: vocabulary, hidden, intermediate, layers, heads, KV heads, head size, theta, eps, bias, tied, positions.
constexpr Preset kPresets[] = {
    {"llama-1m", {2048, 128, 352, 4, 4, 2, 32, 1e4, 1e-5, false, true, 2048}},
    {"llama-5m", {4096, 256, 688, 5, 4, 2, 64, 1e4, 1e-5, false, true, 2048}},
    {"llama-25m", {8192, 512, 1376, 7, 8, 4, 64, 1e4, 1e-5, false, true, 2048}},
    {"llama-124m", {50304, 768, 2048, 12, 12, 12, 64, 1e4, 1e-5, false, true, 2048}},
    {"qwen2.5-0.5b", {151936, 896, 4864, 24, 14, 2, 64, 1e6, 1e-6, true, true, 32768}},
    {"llama-1b", {128256, 2048, 8192, 16, 32, 8, 64, 5e5, 1e-5, false, true, 8192}},
    {"qwen2.5-1.5b", {151936, 1536, 8960, 28, 12, 2, 128, 1e6, 1e-6, true, true, 131072}},
    {"qwen2.5-3b", {151936, 2048, 11008, 36, 16, 2, 128, 1e6, 1e-6, true, true, 32768}},
    {"llama-3b", {128256, 3072, 8192, 28, 24, 8, 128, 5e5, 1e-5, false, true, 8192}},
    {"llama-7b", {32000, 4096, 11008, 32, 32, 32, 128, 1e4, 1e-5, false, false, 4096}},
    {"qwen2.5-7b", {152064, 3584, 18944, 28, 28, 4, 128, 1e6, 1e-6, true, false, 131072}},
    {"llama-8b", {128256, 4096, 14336, 32, 32, 8, 128, 5e5, 1e-5, false, false, 8192}},
    {"llama-13b", {32000, 5120, 13824, 40, 40, 40, 128, 1e4, 1e-5, false, false, 4096}},
};

}  // namespace

int64_t ParameterCount(const LlamaShape& shape) {
  const int64_t hidden = shape.hidden_size;
  const int64_t query = int64_t{shape.num_attention_heads} * shape.head_dim;
  const int64_t qkv = query + 2 * int64_t{shape.num_key_value_heads} * shape.head_dim;
  const int64_t attention = hidden * qkv + query * hidden + (shape.attention_bias ? qkv : 0);
  const int64_t feed_forward = 3 * hidden * shape.intermediate_size;
  const int64_t embedding = int64_t{shape.vocab_size} * hidden;
  return embedding * (shape.tie_word_embeddings ? 1 : 2) + hidden +
         shape.num_hidden_layers * (attention + feed_forward + 2 * hidden);
}

std::optional<LlamaShape> FindModelPreset(absl::string_view name) {
  for (const Preset& preset : kPresets) {
    if (name == preset.name) return preset.shape;
  }
  return std::nullopt;
}

std::vector<std::string> ModelPresetNames() {
  std::vector<std::string> names;
  names.reserve(std::size(kPresets));
  for (const Preset& preset : kPresets) names.push_back(preset.name);
  return names;
}

}  // namespace trainyard::spec
