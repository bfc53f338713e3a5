#include "worker/model/decoder.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/embed/embedding.h"
#include "kernels/gemm/linear.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/pointwise/rope.h"
#include "kernels/pointwise/swiglu.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::TensorView;

kernels::AttentionShape ShapeOf(const ModelConfig& config, int64_t rows) {
  return {1, rows, config.q_heads, config.kv_heads, config.head_dim};
}

}  // namespace

Decoder::Decoder(const ModelConfig& config, const DecoderOptions& options, const linear::LinearScheme* scheme,
                 const NetworkTensors* weights, kernels::Arena& arena)
    : config_(config),
      options_(options),
      scheme_(scheme),
      weights_(weights),
      sites_(ListLinearSites(config, options.max_positions, options.dtype)) {
  const int64_t rows = options_.max_positions;
  const DType dtype = options_.dtype;
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    for (std::vector<TensorView>* cache : {&k_cache_, &v_cache_}) {
      cache->push_back(arena.Allocate("kv_cache", dtype, {1, rows, config_.kv_heads, config_.head_dim}));
    }
  }
  const auto stored = [&](int64_t width) { return arena.Allocate("decoder", dtype, {rows, width}); };
  rope_table_ = arena.Allocate("decoder", DType::kF32, {rows, config_.head_dim / 2, 2});
  tokens_ = arena.Allocate("decoder", DType::kI32, {rows});
  residual_ = stored(config_.hidden_size);
  normed_ = stored(config_.hidden_size);
  inv_rms_ = arena.Allocate("decoder", DType::kF32, {rows});
  qkv_ = stored(config_.qkv_width());
  attention_ = stored(config_.attention_width());
  lse_ = arena.Allocate("decoder", DType::kF32, {1, config_.q_heads, rows});
  out_ = stored(config_.hidden_size);
  gate_up_ = stored(2 * config_.intermediate_size);
  activated_ = stored(config_.intermediate_size);
  logits_ = arena.Allocate("decoder", dtype, {1, config_.vocab_size});

  // Prompts have any length up to rows, and scratch need not grow with it.
  int64_t bytes = 0;
  for (int64_t length = 1;; length = std::min(rows, 2 * length)) {
    bytes = std::max(bytes, kernels::AttentionForwardWorkspaceBytes(ShapeOf(config_, length), dtype, options_.threads));
    if (length == rows) break;
  }
  bytes = std::max(bytes, kernels::LinearWorkspaceBytes(dtype, 1, config_.hidden_size, config_.vocab_size));
  ForEachSite(sites_, [&](const linear::LinearSite& site) { bytes = std::max(bytes, scheme_->WorkspaceBytes(site)); });
  workspace_ = arena.Allocate("decoder", DType::kU8, {bytes});
}

void Decoder::Prepare(kernels::Stream& stream) {
  RopeTable({.table = rope_table_,
             .theta = config_.rope_theta,
             .head_dim = config_.head_dim,
             .scaling = config_.rope_scaling},
            stream);
}

TensorView Decoder::Feed(absl::Span<const int32_t> tokens, kernels::Stream& stream) {
  TY_CHECK(!tokens.empty());
  TY_CHECK_LE(length_ + static_cast<int64_t>(tokens.size()), options_.max_positions);
  if (length_ == 0) {
    Run(tokens, stream);
  } else {
    for (size_t i = 0; i < tokens.size(); ++i) Run(tokens.subspan(i, 1), stream);
  }
  return logits_;
}

void Decoder::Run(absl::Span<const int32_t> tokens, kernels::Stream& stream) {
  const auto rows = static_cast<int64_t>(tokens.size());
  const auto eps = static_cast<float>(config_.norm_eps);
  const kernels::AttentionShape shape = ShapeOf(config_, rows);
  const auto part = [rows](const TensorView& memory) { return memory.Slice(0, rows); };
  const TensorView residual = part(residual_), normed = part(normed_), inv_rms = part(inv_rms_), qkv = part(qkv_);
  const TensorView attention = part(attention_), out = part(out_), gate_up = part(gate_up_);
  const TensorView activated = part(activated_);

  std::memcpy(tokens_.data(), tokens.data(), tokens.size() * sizeof(int32_t));
  EmbeddingForward({.tokens = part(tokens_), .table = weights_->embedding, .y = residual}, stream);
  for (size_t layer = 0; layer < weights_->blocks.size(); ++layer) {
    const BlockTensors& w = weights_->blocks[layer];
    const BlockSites& sites = sites_[layer];
    if (layer == 0) {
      RmsNormForward({.x = residual, .w = w.attention_norm, .y = normed, .inv_rms = inv_rms, .eps = eps}, stream);
    } else {
      RmsNormForward({.x = out,
                      .residual = residual,
                      .sum = residual,
                      .w = w.attention_norm,
                      .y = normed,
                      .inv_rms = inv_rms,
                      .eps = eps},
                     stream);
    }
    scheme_->Forward({sites.qkv, {}, w.qkv_scheme},
                     {.x = normed, .w = w.qkv, .bias = w.qkv_bias, .y = qkv, .workspace = workspace_}, stream);
    RopeForward({.qkv = qkv,
                 .table = rope_table_,
                 .batch = 1,
                 .q_heads = config_.q_heads,
                 .kv_heads = config_.kv_heads,
                 .head_dim = config_.head_dim,
                 .position_offset = length_},
                stream);
    KvCacheAppend(
        {.shape = shape, .qkv = qkv, .k_cache = k_cache_[layer], .v_cache = v_cache_[layer], .position = length_},
        stream);
    if (length_ == 0) {
      const TensorView lse(lse_.data(), DType::kF32, {1, config_.q_heads, rows});
      AttentionForward({.shape = shape, .qkv = qkv, .o = attention, .lse = lse, .workspace = workspace_}, stream);
    } else {
      AttentionDecode({.shape = shape,
                       .q = qkv,
                       .k_cache = k_cache_[layer],
                       .v_cache = v_cache_[layer],
                       .length = length_ + 1,
                       .o = attention},
                      stream);
    }
    scheme_->Forward({sites.output, {}, w.output_scheme},
                     {.x = attention, .w = w.output, .bias = w.output_bias, .y = out, .workspace = workspace_}, stream);
    RmsNormForward(
        {.x = out, .residual = residual, .sum = residual, .w = w.mlp_norm, .y = normed, .inv_rms = inv_rms, .eps = eps},
        stream);
    scheme_->Forward({sites.gate_up, {}, w.gate_up_scheme},
                     {.x = normed, .w = w.gate_up, .y = gate_up, .workspace = workspace_}, stream);
    SwigluForward({.gate_up = gate_up, .y = activated}, stream);
    scheme_->Forward({sites.down, {}, w.down_scheme}, {.x = activated, .w = w.down, .y = out, .workspace = workspace_},
                     stream);
  }
  RmsNormForward({.x = out,
                  .residual = residual,
                  .sum = residual,
                  .w = weights_->final_norm,
                  .y = normed,
                  .inv_rms = inv_rms,
                  .eps = eps},
                 stream);
  LinearForward({.x = normed.Slice(rows - 1, 1), .w = weights_->head, .y = logits_, .workspace = workspace_}, stream);
  length_ += rows;
}

}  // namespace trainyard::model
