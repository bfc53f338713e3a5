#include "worker/model/decoder.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/embed/embedding.h"
#include "kernels/gemm/linear.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/pointwise/rope.h"
#include "kernels/pointwise/swiglu.h"
#include "worker/model/part.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::TensorView;

}  // namespace

Decoder::Decoder(const ModelConfig& config, const DecoderOptions& options, const linear::LinearScheme* scheme,
                 const NetworkTensors* weights, kernels::Arena& arena)
    : config_(config),
      options_(options),
      scheme_(scheme),
      weights_(weights),
      shapes_(ListBlockShapes(config)),
      sites_(ListLinearSites(config, options.max_positions, options.dtype)) {
  const int64_t rows = options_.max_positions;
  const DType dtype = options_.dtype;
  int64_t q_heads = 0, qkv = 0, intermediate = 0;
  for (const BlockShape& shape : shapes_) {
    q_heads = std::max(q_heads, shape.q_heads);
    qkv = std::max(qkv, config_.qkv_width(shape));
    intermediate = std::max(intermediate, shape.intermediate);
    for (std::vector<TensorView>* cache : {&k_cache_, &v_cache_}) {
      cache->emplace_back();
      if (!shape.has_attention()) continue;
      cache->back() = arena.Allocate("kv_cache", dtype, {1, rows, shape.kv_heads, config_.head_dim});
    }
  }
  const auto stored = [&](int64_t width) { return arena.Allocate("decoder", dtype, {rows, width}); };
  rope_table_ = arena.Allocate("decoder", DType::kF32, {rows, config_.head_dim / 2, 2});
  tokens_ = arena.AllocateShared("decoder", DType::kI32, {rows});
  residual_ = stored(config_.hidden_size);
  normed_ = stored(config_.hidden_size);
  inv_rms_ = arena.Allocate("decoder", DType::kF32, {rows});
  qkv_ = stored(qkv);
  attention_ = stored(q_heads * config_.head_dim);
  lse_ = arena.Allocate("decoder", DType::kF32, {1, q_heads, rows});
  out_ = stored(config_.hidden_size);
  gate_up_ = stored(2 * intermediate);
  activated_ = stored(intermediate);
  logits_ = arena.AllocateShared("decoder", dtype, {1, config_.vocab_size});

  int64_t bytes = kernels::LinearWorkspaceBytes(dtype, 1, config_.hidden_size, config_.vocab_size);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    if (!shapes_[static_cast<size_t>(layer)].has_attention()) continue;
    // Prompts have any length up to rows, and scratch need not grow with it.
    for (int64_t length = 1;; length = std::min(rows, 2 * length)) {
      bytes = std::max(
          bytes, kernels::AttentionForwardWorkspaceBytes(AttentionShapeOf(layer, length), dtype, options_.threads));
      if (length == rows) break;
    }
  }
  ForEachSite(sites_, [&](const linear::LinearSite& site) { bytes = std::max(bytes, scheme_->WorkspaceBytes(site)); });
  workspace_ = arena.Allocate("decoder", DType::kU8, {bytes});
}

kernels::AttentionShape Decoder::AttentionShapeOf(int64_t layer, int64_t rows) const {
  const BlockShape& shape = shapes_[static_cast<size_t>(layer)];
  return {.batch = 1,
          .seq = rows,
          .q_heads = shape.q_heads,
          .kv_heads = shape.kv_heads,
          .head_dim = config_.head_dim,
          .kv_of_head = shape.kv_of_head.empty() ? nullptr : shape.kv_of_head.data()};
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
  kernels::WaitForDevice(stream);  // for the host to read
  return logits_;
}

void Decoder::Run(absl::Span<const int32_t> tokens, kernels::Stream& stream) {
  const auto rows = static_cast<int64_t>(tokens.size());
  const TensorView residual = residual_.Slice(0, rows), normed = normed_.Slice(0, rows), out = out_.Slice(0, rows);
  const TensorView inv_rms = inv_rms_.Slice(0, rows);

  kernels::WaitForDevice(stream);
  std::memcpy(tokens_.data(), tokens.data(), tokens.size() * sizeof(int32_t));
  EmbeddingForward({.tokens = tokens_.Slice(0, rows), .table = weights_->embedding, .y = residual}, stream);
  bool is_pending = false;  // `out` is still to be added to the residual stream
  const auto norm = [&](const TensorView& weight) {
    kernels::RmsNormForwardArgs args{
        .x = residual, .w = weight, .y = normed, .inv_rms = inv_rms, .eps = static_cast<float>(config_.norm_eps)};
    if (is_pending) {
      args.x = out;
      args.residual = args.sum = residual;
    }
    RmsNormForward(args, stream);
    is_pending = true;  // by what reads the norm
  };
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    const auto index = static_cast<size_t>(layer);
    const BlockTensors& w = weights_->blocks[index];
    if (shapes_[index].has_attention()) {
      norm(w.attention_norm);
      RunAttention(layer, rows, stream);
    }
    if (shapes_[index].has_mlp()) {
      norm(w.mlp_norm);
      RunMlp(layer, rows, stream);
    }
  }
  norm(weights_->final_norm);
  LinearForward({.x = normed.Slice(rows - 1, 1), .w = weights_->head, .y = logits_, .workspace = workspace_}, stream);
  length_ += rows;
}

void Decoder::RunAttention(int64_t layer, int64_t rows, kernels::Stream& stream) {
  const auto index = static_cast<size_t>(layer);
  const BlockTensors& w = weights_->blocks[index];
  const kernels::AttentionShape shape = AttentionShapeOf(layer, rows);
  const TensorView qkv = Part(qkv_, rows, shape.packed_width());
  const TensorView attention = Part(attention_, rows, shape.q_heads * shape.head_dim);
  scheme_->Forward({sites_[index].qkv, {}, w.qkv_scheme},
                   {.x = normed_.Slice(0, rows), .w = w.qkv, .bias = w.qkv_bias, .y = qkv, .workspace = workspace_},
                   stream);
  RopeForward({.qkv = qkv,
               .table = rope_table_,
               .batch = 1,
               .q_heads = shape.q_heads,
               .kv_heads = shape.kv_heads,
               .head_dim = shape.head_dim,
               .position_offset = length_},
              stream);
  KvCacheAppend(
      {.shape = shape, .qkv = qkv, .k_cache = k_cache_[index], .v_cache = v_cache_[index], .position = length_},
      stream);
  if (length_ == 0) {
    const TensorView lse(lse_.data(), DType::kF32, {1, shape.q_heads, rows});
    AttentionForward({.shape = shape, .qkv = qkv, .o = attention, .lse = lse, .workspace = workspace_}, stream);
  } else {
    AttentionDecode({.shape = shape,
                     .q = qkv,
                     .k_cache = k_cache_[index],
                     .v_cache = v_cache_[index],
                     .length = length_ + 1,
                     .o = attention},
                    stream);
  }
  scheme_->Forward(
      {sites_[index].output, {}, w.output_scheme},
      {.x = attention, .w = w.output, .bias = w.output_bias, .y = out_.Slice(0, rows), .workspace = workspace_},
      stream);
}

void Decoder::RunMlp(int64_t layer, int64_t rows, kernels::Stream& stream) {
  const auto index = static_cast<size_t>(layer);
  const BlockTensors& w = weights_->blocks[index];
  const TensorView gate_up = Part(gate_up_, rows, 2 * shapes_[index].intermediate);
  const TensorView activated = Part(activated_, rows, shapes_[index].intermediate);
  scheme_->Forward({sites_[index].gate_up, {}, w.gate_up_scheme},
                   {.x = normed_.Slice(0, rows), .w = w.gate_up, .y = gate_up, .workspace = workspace_}, stream);
  SwigluForward({.gate_up = gate_up, .y = activated}, stream);
  scheme_->Forward({sites_[index].down, {}, w.down_scheme},
                   {.x = activated, .w = w.down, .y = out_.Slice(0, rows), .workspace = workspace_}, stream);
}

}  // namespace trainyard::model
