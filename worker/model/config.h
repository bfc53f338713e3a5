// The shape of a Llama-style network, and its form as a Hugging Face config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/pointwise/rope.h"

namespace trainyard::model {

// The sizes of one block, where structured pruning has left blocks of different sizes (DarwinLM, arXiv:2502.07780,
// section 3.2).
struct BlockShape {
  int64_t q_heads = 0;       // 0: no attention; the block adds nothing to the residual stream there and has no norm
  int64_t kv_heads = 0;      // 0 without attention
  int64_t intermediate = 0;  // 0: no MLP, likewise
  // The KV head that each query head reads. Empty: regular groups, head h reads h / (q_heads / kv_heads). A KV head
  // that no query head reads is allowed: its keys and values are computed for nothing, and their gradients are 0.
  std::vector<int32_t> kv_of_head;

  bool has_attention() const { return q_heads > 0; }
  bool has_mlp() const { return intermediate > 0; }
  bool is_empty() const { return !has_attention() && !has_mlp(); }

  friend bool operator==(const BlockShape&, const BlockShape&) = default;
};

// Llama (arXiv:2302.13971) with grouped KV heads. Qwen2 (arXiv:2407.10671) is the same network with a bias on q, k, v.
//
// Blocks are alike unless `blocks` says otherwise. Code that depends on a block's sizes asks block_shape(layer) and the
// widths of that block; intermediate_size, q_heads and kv_heads are then only what the dense model had.
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

  std::vector<BlockShape> blocks;  // one a layer, or empty: all as intermediate_size, q_heads and kv_heads say

  BlockShape block_shape(int64_t layer) const {
    if (blocks.empty()) return {q_heads, kv_heads, intermediate_size, {}};
    return blocks[static_cast<size_t>(layer)];
  }
  // Elements a token, of the given shape.
  int64_t attention_width(const BlockShape& block) const { return block.q_heads * head_dim; }
  int64_t qkv_width(const BlockShape& block) const { return (block.q_heads + 2 * block.kv_heads) * head_dim; }
};

// The same network with `blocks` in its shortest form: a map of heads that says what regular groups are is dropped, and
// blocks that are all alike, with regular groups, attention and MLP, become the plain fields, which Hugging Face's
// classes can say. `config` is valid.
ModelConfig Canonical(ModelConfig config);

// block_shape of every layer.
std::vector<BlockShape> ListBlockShapes(const ModelConfig& config);

// InvalidArgument naming every field that is out of range or contradicts another.
absl::Status Validate(const ModelConfig& config);

// Reads config.json of a LlamaForCausalLM or Qwen2ForCausalLM, with the defaults Hugging Face has for absent fields, or
// of a TrainyardPrunedForCausalLM (docs/formats.md). InvalidArgument, naming `path` and the field, for other
// architectures and for options this network does not have (other activations, sliding windows, mlp_bias, other rope
// types).
absl::StatusOr<ModelConfig> ParseConfigJson(const std::string& json, const std::string& path);

// config.json of Canonical(config): for transformers, if all blocks are alike, else TrainyardPrunedForCausalLM. A bias
// on q, k, v alone makes it (or what it was) a Qwen2ForCausalLM. `dtype`: "float32", ...
std::string ToConfigJson(const ModelConfig& config, const std::string& dtype);

}  // namespace trainyard::model
