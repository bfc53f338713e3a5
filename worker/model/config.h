// The shape of a Llama-style network, and its form as a Hugging Face config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/pointwise/rope.h"

namespace trainyard::model {

// Llama (arXiv:2302.13971) with grouped KV heads. Qwen2 (arXiv:2407.10671) is the same network with a bias on q, k, v.
struct ModelConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t layers = 0;
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;  // even; need not be hidden_size / q_heads
  int64_t max_positions = 2048;
  double rope_theta = 10000;
  double norm_eps = 1e-5;
  kernels::RopeScaling rope_scaling;  // factor 1: none
  bool qkv_bias = false;
  bool output_bias = false;      // on attention's output projection: Llama's attention_bias means both
  bool tied_head = false;        // the LM head is the embedding table
  std::vector<int64_t> eos_ids;  // empty: none

  // Numbers that a linear scheme learns at each linear layer of a block (LinearScheme::ParameterCount). They are no
  // part of config.json or of an exported model.
  int64_t site_parameters = 0;

  int64_t attention_width() const { return q_heads * head_dim; }
  int64_t qkv_width() const { return (q_heads + 2 * kv_heads) * head_dim; }
};

// InvalidArgument naming every field that is out of range or contradicts another.
absl::Status Validate(const ModelConfig& config);

// Reads config.json of a LlamaForCausalLM or Qwen2ForCausalLM, with the defaults Hugging Face has for absent fields.
// InvalidArgument, naming `path` and the field, for other architectures and for options this network does not have
// (other activations, sliding windows, mlp_bias, other rope types).
absl::StatusOr<ModelConfig> ParseConfigJson(const std::string& json, const std::string& path);

// config.json that transformers reads. A bias on q, k, v alone makes it a Qwen2ForCausalLM. `dtype`: "float32", ...
std::string ToConfigJson(const ModelConfig& config, const std::string& dtype);

}  // namespace trainyard::model
