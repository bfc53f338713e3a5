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

std::vector<HuggingFacePart> QkvParts(const ModelConfig& config, const std::string& prefix, const char* kind) {
  const int64_t q = config.q_heads * config.head_dim;
  const int64_t kv = config.kv_heads * config.head_dim;
  return {{absl::StrCat(prefix, "self_attn.q_proj.", kind), 0, q},
          {absl::StrCat(prefix, "self_attn.k_proj.", kind), q, kv},
          {absl::StrCat(prefix, "self_attn.v_proj.", kind), q + kv, kv}};
}

TensorView ViewOf(void* data, kernels::DType dtype, const Parameter& parameter) {
  return parameter.is_matrix() ? TensorView(data, dtype, {parameter.shape[0], parameter.shape[1]})
                               : TensorView(data, dtype, {parameter.shape[0]});
}

}  // namespace

std::vector<Parameter> ListParameters(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t wide = config.intermediate_size;
  const float residual_std = kInitStd / std::sqrt(2.0f * static_cast<float>(config.layers));
  using Init = Parameter::Init;

  std::vector<Parameter> list;
  const auto add_scheme = [&](const std::string& site, int layer) {
    if (config.site_parameters == 0) return;
    list.push_back(Vector(site + ".scheme", layer, config.site_parameters, Init::kZeros, {}));
    list.back().belongs_to_scheme = true;
  };
  list.push_back(
      Matrix("embedding.weight", 0, config.vocab_size, hidden, {{"model.embed_tokens.weight", 0, config.vocab_size}}));
  for (int layer = 1; layer <= config.layers; ++layer) {
    const std::string name = absl::StrCat("layers.", layer - 1, ".");
    const std::string theirs = absl::StrCat("model.", name);
    list.push_back(Vector(name + "attention_norm.weight", layer, hidden, Init::kOnes,
                          {{theirs + "input_layernorm.weight", 0, hidden}}));
    list.push_back(Matrix(name + "qkv.weight", layer, config.qkv_width(), hidden, QkvParts(config, theirs, "weight")));
    if (config.qkv_bias) {
      list.push_back(
          Vector(name + "qkv.bias", layer, config.qkv_width(), Init::kZeros, QkvParts(config, theirs, "bias")));
    }
    add_scheme(name + "qkv", layer);
    list.push_back(Matrix(name + "output.weight", layer, hidden, config.attention_width(),
                          {{theirs + "self_attn.o_proj.weight", 0, hidden}}));
    list.back().init_std = residual_std;
    if (config.output_bias) {
      list.push_back(
          Vector(name + "output.bias", layer, hidden, Init::kZeros, {{theirs + "self_attn.o_proj.bias", 0, hidden}}));
    }
    add_scheme(name + "output", layer);
    list.push_back(Vector(name + "mlp_norm.weight", layer, hidden, Init::kOnes,
                          {{theirs + "post_attention_layernorm.weight", 0, hidden}}));
    list.push_back(Matrix(name + "gate_up.weight", layer, 2 * wide, hidden,
                          {{theirs + "mlp.gate_proj.weight", 0, wide}, {theirs + "mlp.up_proj.weight", wide, wide}}));
    add_scheme(name + "gate_up", layer);
    list.push_back(Matrix(name + "down.weight", layer, hidden, wide, {{theirs + "mlp.down_proj.weight", 0, hidden}}));
    list.back().init_std = residual_std;
    add_scheme(name + "down", layer);
  }
  const int last = static_cast<int>(config.layers) + 1;
  list.push_back(Vector("final_norm.weight", last, hidden, Init::kOnes, {{"model.norm.weight", 0, hidden}}));
  if (!config.tied_head) {
    list.push_back(Matrix("head.weight", last, config.vocab_size, hidden, {{"lm_head.weight", 0, config.vocab_size}}));
  }
  return list;
}

int64_t ParameterCount(const ModelConfig& config) {
  int64_t count = 0;
  for (const Parameter& parameter : ListParameters(config)) count += parameter.size();
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
    BlockTensors block;
    block.attention_norm = take();
    block.qkv = take();
    if (config.qkv_bias) block.qkv_bias = take();
    if (config.site_parameters > 0) block.qkv_scheme = take();
    block.output = take();
    if (config.output_bias) block.output_bias = take();
    if (config.site_parameters > 0) block.output_scheme = take();
    block.mlp_norm = take();
    block.gate_up = take();
    if (config.site_parameters > 0) block.gate_up_scheme = take();
    block.down = take();
    if (config.site_parameters > 0) block.down_scheme = take();
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
