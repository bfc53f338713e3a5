#include "worker/model/network.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/embed/embedding.h"
#include "kernels/gemm/linear.h"
#include "kernels/loss/cross_entropy.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/pointwise/swiglu.h"
#include "worker/model/part.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

}  // namespace

int64_t HeadChunkRows(int64_t rows, int head_chunks) {
  const int64_t share = (rows + head_chunks - 1) / head_chunks;
  return std::min(rows, (share + kHeadRows - 1) / kHeadRows * kHeadRows);
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
  goes_back_ = true;
  ForwardTrunk(stream);
  ForwardHead(/*with_gradients=*/true, args, stream);
  BackwardTrunk(args, stream);
  goes_back_ = false;
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
  EmbeddingForward({.tokens = tokens_.Reshape({rows_}), .table = weights_->embedding, .y = residual_[0]}, stream);
  Residual residual{residual_[0], TensorView()};
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    const auto index = static_cast<size_t>(layer);
    const BlockTensors& w = weights_->blocks[index];
    const BlockActivations& a = blocks_[index];
    BeginInput(layer, stream);
    if (shapes_[index].has_attention()) {
      AddAndNorm(residual, residual_[index], w.attention_norm, a.attention_normed, a.attention_inv_rms, a.qkv_amax,
                 stream);
      EndInput(layer, stream);
      ForwardAttention(layer, stream);
      residual.added = ProjectAttention(layer, stream);
    }
    if (shapes_[index].has_mlp()) {
      AddAndNorm(residual, MlpInput(layer), w.mlp_norm, a.mlp_normed, a.mlp_inv_rms, a.gate_up_amax, stream);
      if (!shapes_[index].has_attention()) EndInput(layer, stream);
      ForwardMlp(layer, stream);
      residual.added = ProjectMlp(layer, stream);
    }
  }
  BeginInput(config_.layers, stream);
  AddAndNorm(residual, residual_.back(), weights_->final_norm, final_normed_, final_inv_rms_, {}, stream);
}

void Network::BeginInput(int64_t layer, Stream& stream) const {
  if (offloaded_ != nullptr && goes_back_) offloaded_->MakeRoom(static_cast<size_t>(layer), stream);
}

void Network::EndInput(int64_t layer, Stream& stream) const {
  if (offloaded_ != nullptr && goes_back_) offloaded_->SendHome(static_cast<size_t>(layer), stream);
}

void Network::AddAndNorm(Residual& residual, const TensorView& sum, const TensorView& weight, const TensorView& y,
                         const TensorView& inv_rms, const TensorView& amax, Stream& stream) {
  const auto eps = static_cast<float>(config_.norm_eps);
  if (!residual.added) {
    TY_CHECK(residual.stream.data() == sum.data());
    RmsNormForward({.x = residual.stream, .w = weight, .y = y, .inv_rms = inv_rms, .eps = eps, .amax = amax}, stream);
    return;
  }
  RmsNormForward({.x = residual.added,
                  .residual = residual.stream,
                  .sum = sum,
                  .w = weight,
                  .y = y,
                  .inv_rms = inv_rms,
                  .eps = eps,
                  .amax = amax},
                 stream);
  residual = {sum, TensorView()};
}

void Network::ForwardAttention(int64_t layer, Stream& stream) {
  const auto index = static_cast<size_t>(layer);
  const BlockTensors& w = weights_->blocks[index];
  const BlockActivations& a = blocks_[index];
  scheme_->Forward({sites_[index].qkv, random_, w.qkv_scheme, calibrates_, a.qkv_amax},
                   {.x = a.attention_normed, .w = w.qkv, .bias = w.qkv_bias, .y = a.qkv, .workspace = workspace_},
                   stream);
  RopeForward(RopeOf(layer, a.qkv), stream);
  AttentionForward({.shape = AttentionShapeOf(layer),
                    .qkv = a.qkv,
                    .o = a.attention,
                    .lse = a.lse,
                    .workspace = workspace_,
                    .amax = a.output_amax},
                   stream);
}

TensorView Network::ProjectAttention(int64_t layer, Stream& stream) {
  const auto index = static_cast<size_t>(layer);
  const BlockTensors& w = weights_->blocks[index];
  const BlockActivations& a = blocks_[index];
  const TensorView out = Part(narrow_, rows_, config_.hidden_size);
  scheme_->Forward({sites_[index].output, random_, w.output_scheme, calibrates_, a.output_amax},
                   {.x = a.attention, .w = w.output, .bias = w.output_bias, .y = out, .workspace = workspace_}, stream);
  return out;
}

void Network::ForwardMlp(int64_t layer, Stream& stream) {
  const auto index = static_cast<size_t>(layer);
  const BlockTensors& w = weights_->blocks[index];
  const BlockActivations& a = blocks_[index];
  scheme_->Forward({sites_[index].gate_up, random_, w.gate_up_scheme, calibrates_, a.gate_up_amax},
                   {.x = a.mlp_normed, .w = w.gate_up, .y = a.gate_up, .workspace = workspace_}, stream);
  SwigluForward({.gate_up = a.gate_up, .y = a.activated, .amax = a.down_amax}, stream);
}

TensorView Network::ProjectMlp(int64_t layer, Stream& stream) {
  const auto index = static_cast<size_t>(layer);
  const BlockTensors& w = weights_->blocks[index];
  const BlockActivations& a = blocks_[index];
  const TensorView out = Part(narrow_, rows_, config_.hidden_size);
  scheme_->Forward({sites_[index].down, random_, w.down_scheme, calibrates_, a.down_amax},
                   {.x = a.activated, .w = w.down, .y = out, .workspace = workspace_}, stream);
  return out;
}

void Network::RecomputeBlock(int64_t layer, Stream& stream) {
  const auto index = static_cast<size_t>(layer);
  const BlockTensors& w = weights_->blocks[index];
  const BlockActivations& a = blocks_[index];
  Residual residual{residual_[index], TensorView()};
  if (shapes_[index].has_attention()) {
    AddAndNorm(residual, residual_[index], w.attention_norm, a.attention_normed, a.attention_inv_rms, a.qkv_amax,
               stream);
    ForwardAttention(layer, stream);
  }
  if (!shapes_[index].has_mlp()) return;
  if (shapes_[index].has_attention()) residual.added = ProjectAttention(layer, stream);
  AddAndNorm(residual, MlpInput(layer), w.mlp_norm, a.mlp_normed, a.mlp_inv_rms, a.gate_up_amax, stream);
  ForwardMlp(layer, stream);
}

void Network::ForwardHead(bool with_gradients, const StepArgs& args, Stream& stream) {
  const TensorView normed_grad = Part(narrow_, rows_, config_.hidden_size);
  const TensorView targets = targets_.Reshape({rows_});
  bool accumulate = args.accumulate;
  for (int64_t begin = 0; begin < rows_; begin += logits_.dim(0)) {
    const int64_t count = std::min(logits_.dim(0), rows_ - begin);
    const TensorView logits = logits_.Slice(0, count);
    const TensorView normed = final_normed_.Slice(begin, count);
    const kernels::CrossEntropyArgs loss{
        .logits = logits,
        .targets = targets.Slice(begin, count),
        .losses = losses_.Slice(begin, count),
        .grad_scale = args.loss_scale,
        .weights = target_weights_ ? target_weights_.Slice(begin, count) : TensorView()};
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
  const auto begin = [&args](int64_t layer) {
    if (args.on_layer_begin != nullptr) (*args.on_layer_begin)(static_cast<int>(layer));
  };
  // Norm and embedding gradients only accumulate. They are cleared when their layer begins and not before: its memory
  // may still be another layer's.
  const auto clear = [&](const TensorView& gradient) {
    if (gradient && !args.accumulate) Fill({.y = gradient}, stream);
  };
  clear(gradients_->final_norm);
  RmsNormBackward({.x = residual_.back(),
                   .w = weights_->final_norm,
                   .inv_rms = final_inv_rms_,
                   .dy = Part(narrow_, rows_, config_.hidden_size),
                   .dx = residual_grad_,
                   .dw = gradients_->final_norm,
                   .workspace = workspace_,
                   .amax = gradient_amax_},
                  stream);
  ready(config_.layers + 1);
  for (int64_t layer = config_.layers - 1; layer >= 0; --layer) {
    const BlockShape& shape = shapes_[static_cast<size_t>(layer)];
    if (offloaded_ != nullptr) offloaded_->Fetch(static_cast<size_t>(layer), stream);
    // The forward left the last block's activations where they are needed.
    if (options_.recompute_blocks && layer != last_block_ && !shape.is_empty()) RecomputeBlock(layer, stream);
    begin(layer + 1);
    clear(gradients_->blocks[static_cast<size_t>(layer)].attention_norm);
    clear(gradients_->blocks[static_cast<size_t>(layer)].mlp_norm);
    if (shape.has_mlp()) BackwardMlp(layer, args.accumulate, stream);
    if (shape.has_attention()) BackwardAttention(layer, args.accumulate, stream);
    ready(layer + 1);
  }
  begin(0);
  if (!config_.tied_head) clear(gradients_->embedding);
  EmbeddingBackward({.tokens = tokens_.Reshape({rows_}),
                     .dy = residual_grad_,
                     .dtable = gradients_->embedding,
                     .workspace = workspace_},
                    stream);
  ready(0);
}

linear::LinearCall Network::BackwardCall(const linear::LinearSite& site, const TensorView& parameters,
                                         const TensorView& x_amax) const {
  return {.site = site, .random = random_, .parameters = parameters, .x_amax = x_amax, .dy_amax = gradient_amax_};
}

void Network::BackwardMlp(int64_t layer, bool accumulate, Stream& stream) {
  const auto index = static_cast<size_t>(layer);
  const BlockTensors& w = weights_->blocks[index];
  const BlockTensors& g = gradients_->blocks[index];
  const BlockActivations& a = blocks_[index];
  const TensorView workspace = workspace_;
  const TensorView activated_grad = Part(wide_, rows_, shapes_[index].intermediate);
  const TensorView normed_grad = Part(narrow_, rows_, config_.hidden_size);
  const BlockSites& sites = sites_[index];
  scheme_->Backward(BackwardCall(sites.down, w.down_scheme, a.down_amax),
                    {.dy = residual_grad_,
                     .x = a.activated,
                     .w = w.down,
                     .dx = activated_grad,
                     .dw = g.down,
                     .dparameters = g.down_scheme,
                     .accumulate = accumulate,
                     .workspace = workspace},
                    stream);
  SwigluBackward({.gate_up = a.gate_up, .dy = activated_grad, .dgate_up = a.gate_up, .amax = gradient_amax_}, stream);
  scheme_->Backward(BackwardCall(sites.gate_up, w.gate_up_scheme, a.gate_up_amax),
                    {.dy = a.gate_up,
                     .x = a.mlp_normed,
                     .w = w.gate_up,
                     .dx = normed_grad,
                     .dw = g.gate_up,
                     .dparameters = g.gate_up_scheme,
                     .accumulate = accumulate,
                     .workspace = workspace},
                    stream);
  RmsNormBackward({.x = MlpInput(layer),
                   .w = w.mlp_norm,
                   .inv_rms = a.mlp_inv_rms,
                   .dy = normed_grad,
                   .dresidual = residual_grad_,
                   .dx = residual_grad_,
                   .dw = g.mlp_norm,
                   .workspace = workspace,
                   .amax = gradient_amax_},
                  stream);
}

void Network::BackwardAttention(int64_t layer, bool accumulate, Stream& stream) {
  const auto index = static_cast<size_t>(layer);
  const BlockTensors& w = weights_->blocks[index];
  const BlockTensors& g = gradients_->blocks[index];
  const BlockActivations& a = blocks_[index];
  const BlockSites& sites = sites_[index];
  const TensorView workspace = workspace_;
  const TensorView attention_grad = Part(narrow_, rows_, config_.attention_width(shapes_[index]));
  const TensorView normed_grad = Part(narrow_, rows_, config_.hidden_size);
  const TensorView qkv_grad = Part(wide_, rows_, config_.qkv_width(shapes_[index]));
  scheme_->Backward(BackwardCall(sites.output, w.output_scheme, a.output_amax),
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
  AttentionBackward({.shape = AttentionShapeOf(layer),
                     .qkv = a.qkv,
                     .o = a.attention,
                     .lse = a.lse,
                     .dout = attention_grad,
                     .dqkv = qkv_grad,
                     .workspace = workspace},
                    stream);
  kernels::RopeArgs rope = RopeOf(layer, qkv_grad);
  rope.amax = gradient_amax_;
  RopeBackward(rope, stream);
  scheme_->Backward(BackwardCall(sites.qkv, w.qkv_scheme, a.qkv_amax),
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
                   .workspace = workspace,
                   .amax = gradient_amax_},
                  stream);
}

}  // namespace trainyard::model
