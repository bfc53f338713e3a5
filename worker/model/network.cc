#include "worker/model/network.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/embed/embedding.h"
#include "kernels/gemm/linear.h"
#include "kernels/loss/cross_entropy.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/pointwise/rope.h"
#include "kernels/pointwise/swiglu.h"

namespace trainyard::model {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

// The head of `memory` as (rows, cols) of `dtype`.
TensorView Part(const TensorView& memory, int64_t rows, int64_t cols) {
  TY_CHECK_LE(rows * cols, memory.size());
  return {memory.data(), memory.dtype(), {rows, cols}};
}

}  // namespace

int64_t HeadChunkRows(int64_t rows, int head_chunks) {
  const int64_t share = (rows + head_chunks - 1) / head_chunks;
  return std::min(rows, (share + kHeadRows - 1) / kHeadRows * kHeadRows);
}

Network::Network(const ModelConfig& config, const NetworkOptions& options, const linear::LinearScheme* scheme,
                 const NetworkTensors* weights, const NetworkTensors* gradients, Arena& arena)
    : config_(config),
      options_(options),
      scheme_(scheme),
      weights_(weights),
      gradients_(gradients),
      rows_(options.batch * options.seq),
      sites_(ListLinearSites(config, rows_, options.dtype)),
      attention_shape_{options.batch, options.seq, config.q_heads, config.kv_heads, config.head_dim} {
  const int64_t hidden = config_.hidden_size;
  const bool keeps_all = gradients_ != nullptr && !options_.recompute_blocks;
  tokens_ = arena.Allocate("activations", DType::kI32, {options_.batch, options_.seq});
  targets_ = arena.Allocate("activations", DType::kI32, {options_.batch, options_.seq});
  losses_ = arena.Allocate("activations", DType::kF32, {rows_});
  rope_table_ = arena.Allocate("activations", DType::kF32, {options_.seq, config_.head_dim / 2, 2});
  // A network that only evaluates needs the residual stream once: each norm reads and writes it in place.
  const int64_t residuals = gradients_ != nullptr ? config_.layers + 1 : 1;
  for (int64_t i = 0; i < residuals; ++i) {
    residual_.push_back(arena.Allocate("activations", options_.dtype, {rows_, hidden}));
  }
  residual_.resize(static_cast<size_t>(config_.layers) + 1, residual_.back());
  for (int64_t i = 0; i < (keeps_all ? config_.layers : 1); ++i) blocks_.push_back(AllocateBlock(arena));
  blocks_.resize(static_cast<size_t>(config_.layers), blocks_.back());
  final_normed_ = arena.Allocate("activations", options_.dtype, {rows_, hidden});
  final_inv_rms_ = arena.Allocate("activations", DType::kF32, {rows_});
  narrow_ = arena.Allocate("activations", options_.dtype, {rows_ * std::max(hidden, config_.attention_width())});
  if (gradients_ != nullptr) {
    wide_ = arena.Allocate("activations", options_.dtype,
                           {rows_ * std::max(config_.qkv_width(), config_.intermediate_size)});
    residual_grad_ = arena.Allocate("activations", options_.dtype, {rows_, hidden});
  }
  logits_ =
      arena.Allocate("workspace", options_.dtype, {HeadChunkRows(rows_, options_.head_chunks), config_.vocab_size});
  workspace_ = arena.Allocate("workspace", DType::kU8, {WorkspaceBytes()});
}

Network::BlockActivations Network::AllocateBlock(Arena& arena) const {
  const auto stored = [&](int64_t width) { return arena.Allocate("activations", options_.dtype, {rows_, width}); };
  BlockActivations block;
  block.attention_normed = stored(config_.hidden_size);
  block.attention_inv_rms = arena.Allocate("activations", DType::kF32, {rows_});
  block.qkv = stored(config_.qkv_width());
  block.attention = stored(config_.attention_width());
  block.lse = arena.Allocate("activations", DType::kF32, {options_.batch, config_.q_heads, options_.seq});
  block.mid = stored(config_.hidden_size);
  block.mlp_normed = stored(config_.hidden_size);
  block.mlp_inv_rms = arena.Allocate("activations", DType::kF32, {rows_});
  block.gate_up = stored(2 * config_.intermediate_size);
  block.activated = stored(config_.intermediate_size);
  return block;
}

int64_t Network::WorkspaceBytes() const {
  const DType dtype = options_.dtype;
  const int64_t hidden = config_.hidden_size;
  int64_t bytes = kernels::AttentionForwardWorkspaceBytes(attention_shape_, dtype, options_.threads);
  bytes = std::max(bytes, kernels::LinearWorkspaceBytes(dtype, rows_, hidden, config_.vocab_size));
  ForEachSite(sites_, [&](const linear::LinearSite& site) { bytes = std::max(bytes, scheme_->WorkspaceBytes(site)); });
  if (gradients_ == nullptr) return bytes;
  return std::max({bytes, kernels::AttentionBackwardWorkspaceBytes(attention_shape_, dtype, options_.threads),
                   kernels::RmsNormBackwardWorkspaceBytes(rows_, hidden),
                   kernels::EmbeddingBackwardWorkspaceBytes(rows_)});
}

void Network::Prepare(Stream& stream) {
  RopeTable({.table = rope_table_,
             .theta = config_.rope_theta,
             .head_dim = config_.head_dim,
             .scaling = config_.rope_scaling},
            stream);
}

void Network::ForwardBackward(const StepArgs& args, Stream& stream) {
  TY_CHECK(gradients_ != nullptr);
  random_ = args.random;
  ForwardTrunk(stream);
  ForwardHead(/*with_gradients=*/true, args, stream);
  BackwardTrunk(args, stream);
}

void Network::Forward(Stream& stream) {
  random_ = {};
  ForwardTrunk(stream);
  ForwardHead(/*with_gradients=*/false, {}, stream);
}

void Network::CalibrateScheme(Stream& stream) {
  calibrates_ = true;
  ForwardTrunk(stream);
  calibrates_ = false;
}

void Network::ForwardLogits(const TensorView& logits, Stream& stream) {
  random_ = {};
  ForwardTrunk(stream);
  LinearForward({.x = final_normed_, .w = weights_->head, .y = logits, .workspace = workspace_}, stream);
}

void Network::ForwardTrunk(Stream& stream) {
  const auto eps = static_cast<float>(config_.norm_eps);
  const TensorView out = Part(narrow_, rows_, config_.hidden_size);
  EmbeddingForward({.tokens = tokens_.Reshape({rows_}), .table = weights_->embedding, .y = residual_[0]}, stream);
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    const auto index = static_cast<size_t>(layer);
    const BlockTensors& w = weights_->blocks[index];
    const BlockActivations& a = block(layer);
    if (layer == 0) {
      RmsNormForward({.x = residual_[0],
                      .w = w.attention_norm,
                      .y = a.attention_normed,
                      .inv_rms = a.attention_inv_rms,
                      .eps = eps},
                     stream);
    } else {
      RmsNormForward({.x = out,
                      .residual = block(layer - 1).mid,
                      .sum = residual_[index],
                      .w = w.attention_norm,
                      .y = a.attention_normed,
                      .inv_rms = a.attention_inv_rms,
                      .eps = eps},
                     stream);
    }
    ForwardBlockInner(layer, stream);
    scheme_->Forward({sites_[index].down, random_, w.down_scheme, calibrates_},
                     {.x = a.activated, .w = w.down, .y = out, .workspace = workspace_}, stream);
  }
  RmsNormForward({.x = out,
                  .residual = block(config_.layers - 1).mid,
                  .sum = residual_.back(),
                  .w = weights_->final_norm,
                  .y = final_normed_,
                  .inv_rms = final_inv_rms_,
                  .eps = eps},
                 stream);
}

void Network::ForwardBlockInner(int64_t layer, Stream& stream) {
  const auto index = static_cast<size_t>(layer);
  const BlockTensors& w = weights_->blocks[index];
  const BlockActivations& a = block(layer);
  const TensorView out = Part(narrow_, rows_, config_.hidden_size);
  const BlockSites& sites = sites_[index];
  scheme_->Forward({sites.qkv, random_, w.qkv_scheme, calibrates_},
                   {.x = a.attention_normed, .w = w.qkv, .bias = w.qkv_bias, .y = a.qkv, .workspace = workspace_},
                   stream);
  RopeForward({.qkv = a.qkv,
               .table = rope_table_,
               .batch = options_.batch,
               .q_heads = config_.q_heads,
               .kv_heads = config_.kv_heads,
               .head_dim = config_.head_dim},
              stream);
  AttentionForward({.shape = attention_shape_, .qkv = a.qkv, .o = a.attention, .lse = a.lse, .workspace = workspace_},
                   stream);
  scheme_->Forward({sites.output, random_, w.output_scheme, calibrates_},
                   {.x = a.attention, .w = w.output, .bias = w.output_bias, .y = out, .workspace = workspace_}, stream);
  RmsNormForward({.x = out,
                  .residual = residual_[index],
                  .sum = a.mid,
                  .w = w.mlp_norm,
                  .y = a.mlp_normed,
                  .inv_rms = a.mlp_inv_rms,
                  .eps = static_cast<float>(config_.norm_eps)},
                 stream);
  scheme_->Forward({sites.gate_up, random_, w.gate_up_scheme, calibrates_},
                   {.x = a.mlp_normed, .w = w.gate_up, .y = a.gate_up, .workspace = workspace_}, stream);
  SwigluForward({.gate_up = a.gate_up, .y = a.activated}, stream);
}

void Network::ForwardHead(bool with_gradients, const StepArgs& args, Stream& stream) {
  const TensorView normed_grad = Part(narrow_, rows_, config_.hidden_size);
  const TensorView targets = targets_.Reshape({rows_});
  bool accumulate = args.accumulate;
  for (int64_t begin = 0; begin < rows_; begin += logits_.dim(0)) {
    const int64_t count = std::min(logits_.dim(0), rows_ - begin);
    const TensorView logits = logits_.Slice(0, count);
    const TensorView normed = final_normed_.Slice(begin, count);
    const kernels::CrossEntropyArgs loss{.logits = logits,
                                         .targets = targets.Slice(begin, count),
                                         .losses = losses_.Slice(begin, count),
                                         .grad_scale = args.loss_scale};
    ForHeadParts(count, [&](int64_t row, int64_t rows) {
      LinearForward(
          {.x = normed.Slice(row, rows), .w = weights_->head, .y = logits.Slice(row, rows), .workspace = workspace_},
          stream);
    });
    if (!with_gradients) {
      CrossEntropyForward(loss, stream);
      continue;
    }
    CrossEntropyForwardBackward(loss, stream);
    for (int64_t row = 0; row < count; row += kHeadRows) {
      const int64_t rows = std::min(kHeadRows, count - row);
      LinearBackwardWeight({.dy = logits.Slice(row, rows),
                            .x = normed.Slice(row, rows),
                            .dw = gradients_->head,
                            .accumulate = accumulate,
                            .workspace = workspace_},
                           stream);
      accumulate = true;
    }
    ForHeadParts(count, [&](int64_t row, int64_t rows) {
      LinearBackwardInput({.dy = logits.Slice(row, rows),
                           .w = weights_->head,
                           .dx = normed_grad.Slice(begin + row, rows),
                           .workspace = workspace_},
                          stream);
    });
  }
}

void Network::ForHeadParts(int64_t count, absl::FunctionRef<void(int64_t row, int64_t rows)> body) const {
  // A product's bits may depend on which of its kernels the library takes, which goes by size: rows that do not fill a
  // block are a product of their own whatever the chunks, and below this size every block is.
  constexpr int64_t kLargeHead = 1 << 14;
  const int64_t full = count / kHeadRows * kHeadRows;
  const int64_t step = config_.vocab_size * config_.hidden_size < kLargeHead ? kHeadRows : std::max(full, kHeadRows);
  for (int64_t row = 0; row < full; row += step) body(row, std::min(step, full - row));
  if (full < count) body(full, count - full);
}

void Network::BackwardTrunk(const StepArgs& args, Stream& stream) {
  const auto ready = [&args](int64_t layer) {
    if (args.on_layer_ready != nullptr) (*args.on_layer_ready)(static_cast<int>(layer));
  };
  // Norm and embedding gradients only accumulate.
  if (!args.accumulate) {
    Fill({.y = gradients_->final_norm}, stream);
    for (const BlockTensors& block : gradients_->blocks) {
      Fill({.y = block.attention_norm}, stream);
      Fill({.y = block.mlp_norm}, stream);
    }
    if (!config_.tied_head) Fill({.y = gradients_->embedding}, stream);
  }
  RmsNormBackward({.x = residual_.back(),
                   .w = weights_->final_norm,
                   .inv_rms = final_inv_rms_,
                   .dy = Part(narrow_, rows_, config_.hidden_size),
                   .dx = residual_grad_,
                   .dw = gradients_->final_norm,
                   .workspace = workspace_},
                  stream);
  ready(config_.layers + 1);
  for (int64_t layer = config_.layers - 1; layer >= 0; --layer) {
    BackwardBlock(layer, args.accumulate, stream);
    ready(layer + 1);
  }
  EmbeddingBackward({.tokens = tokens_.Reshape({rows_}),
                     .dy = residual_grad_,
                     .dtable = gradients_->embedding,
                     .workspace = workspace_},
                    stream);
  ready(0);
}

void Network::BackwardBlock(int64_t layer, bool accumulate, Stream& stream) {
  const auto index = static_cast<size_t>(layer);
  const BlockTensors& w = weights_->blocks[index];
  const BlockTensors& g = gradients_->blocks[index];
  const BlockActivations& a = block(layer);
  const TensorView workspace = workspace_;
  // The forward left the last block's activations where they are needed.
  if (options_.recompute_blocks && layer != config_.layers - 1) {
    RmsNormForward({.x = residual_[index],
                    .w = w.attention_norm,
                    .y = a.attention_normed,
                    .inv_rms = a.attention_inv_rms,
                    .eps = static_cast<float>(config_.norm_eps)},
                   stream);
    ForwardBlockInner(layer, stream);
  }

  const TensorView activated_grad = Part(wide_, rows_, config_.intermediate_size);
  const TensorView normed_grad = Part(narrow_, rows_, config_.hidden_size);
  const BlockSites& sites = sites_[index];
  scheme_->Backward({sites.down, random_, w.down_scheme},
                    {.dy = residual_grad_,
                     .x = a.activated,
                     .w = w.down,
                     .dx = activated_grad,
                     .dw = g.down,
                     .dparameters = g.down_scheme,
                     .accumulate = accumulate,
                     .workspace = workspace},
                    stream);
  SwigluBackward({.gate_up = a.gate_up, .dy = activated_grad, .dgate_up = a.gate_up}, stream);
  scheme_->Backward({sites.gate_up, random_, w.gate_up_scheme},
                    {.dy = a.gate_up,
                     .x = a.mlp_normed,
                     .w = w.gate_up,
                     .dx = normed_grad,
                     .dw = g.gate_up,
                     .dparameters = g.gate_up_scheme,
                     .accumulate = accumulate,
                     .workspace = workspace},
                    stream);
  RmsNormBackward({.x = a.mid,
                   .w = w.mlp_norm,
                   .inv_rms = a.mlp_inv_rms,
                   .dy = normed_grad,
                   .dresidual = residual_grad_,
                   .dx = residual_grad_,
                   .dw = g.mlp_norm,
                   .workspace = workspace},
                  stream);

  const TensorView attention_grad = Part(narrow_, rows_, config_.attention_width());
  const TensorView qkv_grad = Part(wide_, rows_, config_.qkv_width());
  scheme_->Backward({sites.output, random_, w.output_scheme},
                    {.dy = residual_grad_,
                     .x = a.attention,
                     .w = w.output,
                     .dx = attention_grad,
                     .dw = g.output,
                     .db = g.output_bias,
                     .dparameters = g.output_scheme,
                     .accumulate = accumulate,
                     .workspace = workspace},
                    stream);
  AttentionBackward({.shape = attention_shape_,
                     .qkv = a.qkv,
                     .o = a.attention,
                     .lse = a.lse,
                     .dout = attention_grad,
                     .dqkv = qkv_grad,
                     .workspace = workspace},
                    stream);
  RopeBackward({.qkv = qkv_grad,
                .table = rope_table_,
                .batch = options_.batch,
                .q_heads = config_.q_heads,
                .kv_heads = config_.kv_heads,
                .head_dim = config_.head_dim},
               stream);
  scheme_->Backward({sites.qkv, random_, w.qkv_scheme},
                    {.dy = qkv_grad,
                     .x = a.attention_normed,
                     .w = w.qkv,
                     .dx = normed_grad,
                     .dw = g.qkv,
                     .db = g.qkv_bias,
                     .dparameters = g.qkv_scheme,
                     .accumulate = accumulate,
                     .workspace = workspace},
                    stream);
  RmsNormBackward({.x = residual_[index],
                   .w = w.attention_norm,
                   .inv_rms = a.attention_inv_rms,
                   .dy = normed_grad,
                   .dresidual = residual_grad_,
                   .dx = residual_grad_,
                   .dw = g.attention_norm,
                   .workspace = workspace},
                  stream);
}

}  // namespace trainyard::model
