#include "worker/model/parameters.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/philox.h"

namespace trainyard::model {
namespace {

using kernels::TensorView;

constexpr float kInitStd = 0.02f;

Parameter Matrix(std::string name, int layer, int64_t out, int64_t in, std::vector<HuggingFacePart> parts) {
  return {std::move(name), {out, in}, layer, Parameter::Init::kNormal, kInitStd, std::move(parts)};
}

Parameter Vector(std::string name, int layer, int64_t size, Parameter::Init init, std::vector<HuggingFacePart> parts) {
  return {std::move(name), {size}, layer, init, 0.0f, std::move(parts)};
}

std::vector<HuggingFacePart> QkvParts(const ModelConfig& config, const BlockShape& block, const std::string& prefix,
                                      const char* kind) {
  const int64_t q = block.q_heads * config.head_dim;
  const int64_t kv = block.kv_heads * config.head_dim;
  return {{absl::StrCat(prefix, "self_attn.q_proj.", kind), 0, q},
          {absl::StrCat(prefix, "self_attn.k_proj.", kind), q, kv},
          {absl::StrCat(prefix, "self_attn.v_proj.", kind), q + kv, kv}};
}

TensorView ViewOf(void* data, kernels::DType dtype, const Parameter& parameter) {
  return parameter.is_matrix() ? TensorView(data, dtype, {parameter.shape[0], parameter.shape[1]})
                               : TensorView(data, dtype, {parameter.shape[0]});
}

// Appends the parameters of a network, front to back.
class ParameterList {
 public:
  explicit ParameterList(const ModelConfig& config)
      : config_(config), residual_std_(kInitStd / std::sqrt(2.0f * static_cast<float>(config.layers))) {}

  void AddEmbedding() {
    Add(Matrix("embedding.weight", 0, config_.vocab_size, config_.hidden_size,
               {{"model.embed_tokens.weight", 0, config_.vocab_size}}));
  }

  void AddAttention(const BlockShape& block, int layer) {
    const int64_t hidden = config_.hidden_size, width = config_.qkv_width(block);
    const std::string name = absl::StrCat("layers.", layer - 1, "."), theirs = absl::StrCat("model.", name);
    AddVector(name + "attention_norm.weight", layer, hidden, Init::kOnes, theirs + "input_layernorm.weight");
    Add(Matrix(name + "qkv.weight", layer, width, hidden, QkvParts(config_, block, theirs, "weight")));
    if (config_.qkv_bias) {
      Add(Vector(name + "qkv.bias", layer, width, Init::kZeros, QkvParts(config_, block, theirs, "bias")));
    }
    AddScheme(name + "qkv", layer);
    AddToResidual(name + "output", layer, config_.attention_width(block), theirs + "self_attn.o_proj.");
    if (config_.output_bias) {
      AddVector(name + "output.bias", layer, hidden, Init::kZeros, theirs + "self_attn.o_proj.bias");
    }
    AddScheme(name + "output", layer);
  }

  void AddMlp(const BlockShape& block, int layer) {
    const int64_t hidden = config_.hidden_size, wide = block.intermediate;
    const std::string name = absl::StrCat("layers.", layer - 1, "."), theirs = absl::StrCat("model.", name);
    AddVector(name + "mlp_norm.weight", layer, hidden, Init::kOnes, theirs + "post_attention_layernorm.weight");
    Add(Matrix(name + "gate_up.weight", layer, 2 * wide, hidden,
               {{theirs + "mlp.gate_proj.weight", 0, wide}, {theirs + "mlp.up_proj.weight", wide, wide}}));
    AddScheme(name + "gate_up", layer);
    AddToResidual(name + "down", layer, wide, theirs + "mlp.down_proj.");
    AddScheme(name + "down", layer);
  }

  void AddEnd() {
    const int last = static_cast<int>(config_.layers) + 1;
    AddVector("final_norm.weight", last, config_.hidden_size, Init::kOnes, "model.norm.weight");
    if (config_.tied_head) return;
    Add(Matrix("head.weight", last, config_.vocab_size, config_.hidden_size,
               {{"lm_head.weight", 0, config_.vocab_size}}));
  }

  std::vector<Parameter> Take() { return std::move(list_); }

 private:
  using Init = Parameter::Init;

  void Add(Parameter parameter) { list_.push_back(std::move(parameter)); }
  void AddVector(std::string name, int layer, int64_t size, Init init, std::string theirs) {
    Add(Vector(std::move(name), layer, size, init, {{std::move(theirs), 0, size}}));
  }
  // A matrix whose outputs are added to the residual stream.
  void AddToResidual(const std::string& name, int layer, int64_t in, const std::string& theirs) {
    Add(Matrix(name + ".weight", layer, config_.hidden_size, in, {{theirs + "weight", 0, config_.hidden_size}}));
    list_.back().init_std = residual_std_;
  }
  void AddScheme(const std::string& site, int layer) {
    if (config_.site_parameters == 0) return;
    Add(Vector(site + ".scheme", layer, config_.site_parameters, Init::kZeros, {}));
    list_.back().belongs_to_scheme = true;
  }

  const ModelConfig& config_;
  const float residual_std_;
  std::vector<Parameter> list_;
};

}  // namespace

std::vector<Parameter> ListParameters(const ModelConfig& config) {
  ParameterList list(config);
  list.AddEmbedding();
  for (int layer = 1; layer <= config.layers; ++layer) {
    const BlockShape block = config.block_shape(layer - 1);
    if (block.has_attention()) list.AddAttention(block, layer);
    if (block.has_mlp()) list.AddMlp(block, layer);
  }
  list.AddEnd();
  return list.Take();
}

int64_t BlockParameterCount(const ModelConfig& config, const BlockShape& block) {
  const int64_t hidden = config.hidden_size;
  int64_t count = 0;
  if (block.has_attention()) {
    const int64_t qkv = config.qkv_width(block);
    count += hidden + (qkv + config.attention_width(block)) * hidden + 2 * config.site_parameters;
    count += (config.qkv_bias ? qkv : 0) + (config.output_bias ? hidden : 0);
  }
  if (block.has_mlp()) count += hidden + 3 * block.intermediate * hidden + 2 * config.site_parameters;
  return count;
}

int64_t ParameterCount(const ModelConfig& config) {
  int64_t count = (config.tied_head ? 1 : 2) * config.vocab_size * config.hidden_size + config.hidden_size;
  if (config.blocks.empty()) return count + config.layers * BlockParameterCount(config, config.block_shape(0));
  for (const BlockShape& block : config.blocks) count += BlockParameterCount(config, block);
  return count;
}

NetworkTensors BindTensors(const ModelConfig& config, std::vector<TensorView> all) {
  NetworkTensors tensors;
  tensors.all = std::move(all);
  size_t next = 0;
  const auto take = [&] {
    TY_CHECK_LT(next, tensors.all.size());
    return tensors.all[next++];
  };
  tensors.embedding = take();
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const BlockShape shape = config.block_shape(layer);
    BlockTensors block;
    if (shape.has_attention()) {
      block.attention_norm = take();
      block.qkv = take();
      if (config.qkv_bias) block.qkv_bias = take();
      if (config.site_parameters > 0) block.qkv_scheme = take();
      block.output = take();
      if (config.output_bias) block.output_bias = take();
      if (config.site_parameters > 0) block.output_scheme = take();
    }
    if (shape.has_mlp()) {
      block.mlp_norm = take();
      block.gate_up = take();
      if (config.site_parameters > 0) block.gate_up_scheme = take();
      block.down = take();
      if (config.site_parameters > 0) block.down_scheme = take();
    }
    tensors.blocks.push_back(block);
  }
  tensors.final_norm = take();
  tensors.head = config.tied_head ? tensors.embedding : take();
  TY_CHECK_EQ(next, tensors.all.size());
  return tensors;
}

NetworkTensors AllocateWeights(const ModelConfig& config, kernels::DType dtype, const std::string& purpose,
                               kernels::Arena& arena) {
  std::vector<TensorView> all;
  for (const Parameter& parameter : ListParameters(config)) {
    const TensorView memory = arena.Allocate(purpose, dtype, {parameter.size()});
    all.push_back(ViewOf(memory.data(), dtype, parameter));
  }
  return BindTensors(config, std::move(all));
}

Gradients AllocateGradients(const ModelConfig& config, kernels::Arena& arena) {
  Gradients gradients;
  gradients.flat = arena.Allocate("gradients", kernels::DType::kF32, {ParameterCount(config)});
  std::vector<TensorView> all;
  int64_t begin = 0;
  for (const Parameter& parameter : ListParameters(config)) {
    all.push_back(ViewOf(gradients.flat.Slice(begin, parameter.size()).data(), kernels::DType::kF32, parameter));
    begin += parameter.size();
  }
  gradients.tensors = BindTensors(config, std::move(all));
  return gradients;
}

void InitializeParameter(const Parameter& parameter, uint32_t index, uint64_t seed, const TensorView& tensor,
                         kernels::Stream& stream) {
  TY_CHECK_EQ(tensor.size(), parameter.size());
  const kernels::PhiloxKey key{.seed = seed, .purpose = kernels::kRandomInit, .tensor = index};
  kernels::DispatchFloat(tensor.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* const out = tensor.as<T>();
    stream.pool().ParallelFor(tensor.size(), 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float value = parameter.init == Parameter::Init::kOnes ? 1.0f : 0.0f;
        if (parameter.init == Parameter::Init::kNormal) {
          value = parameter.init_std * kernels::RandomNormal(key, static_cast<uint64_t>(i));
        }
        out[i] = kernels::FromFloat<T>(value);
      }
    });
  });
}

}  // namespace trainyard::model
