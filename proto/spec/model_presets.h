// Shapes of Llama-style networks that have a name: pure numbers, shared by validation and worker/model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace trainyard::spec {

// The fields of a Hugging Face LlamaForCausalLM or Qwen2ForCausalLM config.json that define the network.
struct LlamaShape {
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_hidden_layers = 0;
  int32_t num_attention_heads = 0;
  int32_t num_key_value_heads = 0;
  int32_t head_dim = 0;
  double rope_theta = 10000.0;
  double rms_norm_eps = 1e-5;
  bool attention_bias = false;  // on q, k and v, as in Qwen2
  bool tie_word_embeddings = false;
  int32_t max_position_embeddings = 2048;

  bool operator==(const LlamaShape&) const = default;
};

// Trainable numbers of the network: embedding, blocks, final norm, and the head unless it is tied.
int64_t ParameterCount(const LlamaShape& shape);

// "llama-1m", ..., "qwen2.5-7b"; nullopt for an unknown name. The small llamas are ours, the others have the published
// shapes. Rotary scaling of long-context releases is not part of a shape: those presets state the length before it.
std::optional<LlamaShape> FindModelPreset(absl::string_view name);

// All names, smallest model first.
std::vector<std::string> ModelPresetNames();

}  // namespace trainyard::spec
