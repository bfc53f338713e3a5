// The memory of a network: what is kept of each block, and what all of them share.
#include <algorithm>

#include "base/check.h"
#include "kernels/embed/embedding.h"
#include "kernels/gemm/linear.h"
#include "kernels/norm/rms_norm.h"
#include "worker/model/network.h"
#include "worker/model/part.h"

namespace trainyard::model {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::TensorView;

// The largest size(shape) of all blocks, 0 if none has any.
template <typename Size>
int64_t Largest(const std::vector<BlockShape>& shapes, Size&& size) {
  int64_t largest = 0;
  for (const BlockShape& shape : shapes) largest = std::max<int64_t>(largest, size(shape));
  return largest;
}

}  // namespace

Network::Network(const ModelConfig& config, const NetworkOptions& options, const linear::LinearScheme* scheme,
                 const NetworkTensors* weights, const NetworkTensors* gradients, Arena& arena)
    : config_(config),
      options_(options),
      scheme_(scheme),
      weights_(weights),
      gradients_(gradients),
      rows_(options.batch * options.seq),
      shapes_(ListBlockShapes(config)),
      sites_(ListLinearSites(config, rows_, options.dtype)) {
  const int64_t hidden = config_.hidden_size;
  tokens_ = arena.AllocateShared("activations", DType::kI32, {options_.batch, options_.seq});
  targets_ = arena.AllocateShared("activations", DType::kI32, {options_.batch, options_.seq});
  if (options_.weighted_targets) target_weights_ = arena.AllocateShared("activations", DType::kF32, {rows_});
  losses_ = arena.AllocateShared("activations", DType::kF32, {rows_});
  rope_table_ = arena.Allocate("activations", DType::kF32, {options_.seq, config_.head_dim / 2, 2});
  AllocateResiduals(arena);
  AllocateBlocks(arena);
  final_normed_ = arena.Allocate("activations", options_.dtype, {rows_, hidden});
  final_inv_rms_ = arena.Allocate("activations", DType::kF32, {rows_});
  const int64_t narrow =
      std::max(hidden, Largest(shapes_, [&](const BlockShape& shape) { return config_.attention_width(shape); }));
  narrow_ = arena.Allocate("activations", options_.dtype, {rows_ * narrow});
  if (gradients_ != nullptr) {
    const int64_t wide = Largest(
        shapes_, [&](const BlockShape& shape) { return std::max(config_.qkv_width(shape), shape.intermediate); });
    wide_ = arena.Allocate("activations", options_.dtype, {rows_ * wide});
    residual_grad_ = arena.Allocate("activations", options_.dtype, {rows_, hidden});
    if (UsesAmax()) gradient_amax_ = arena.Allocate("activations", DType::kF32, {1});
  }
  logits_ =
      arena.Allocate("workspace", options_.dtype, {HeadChunkRows(rows_, options_.head_chunks), config_.vocab_size});
  workspace_ = arena.Allocate("workspace", DType::kU8, {WorkspaceBytes()});
}

void Network::AllocateResiduals(Arena& arena) {
  const auto allocate = [&] { return arena.Allocate("activations", options_.dtype, {rows_, config_.hidden_size}); };
  const bool offloads = options_.offload_inputs && gradients_ != nullptr;
  TY_CHECK(!offloads || options_.recompute_blocks);
  residual_.resize(shapes_.size() + 1);
  residual_[0] = allocate();
  // With inputs on the host, two buffers in turn.
  const TensorView second = offloads ? allocate() : TensorView();
  std::vector<TensorView> inputs(residual_.size());
  int64_t made = 0;
  for (size_t layer = 0; layer <= shapes_.size(); ++layer) {
    if (layer < shapes_.size() && shapes_[layer].is_empty()) continue;
    // The embedding is the input of the first block that has anything. A network that only evaluates needs the residual
    // stream once: each norm reads and writes it in place.
    if (made == 0 || gradients_ == nullptr) {
      residual_[layer] = residual_[0];
    } else if (offloads) {
      residual_[layer] = made % 2 == 0 ? residual_[0] : second;
    } else {
      residual_[layer] = allocate();
    }
    inputs[layer] = residual_[layer];
    ++made;
    if (layer < shapes_.size()) last_block_ = static_cast<int64_t>(layer);
  }
  if (offloads) offloaded_ = std::make_unique<OffloadedInputs>(inputs, arena);
}

void Network::AllocateBlocks(Arena& arena) {
  const bool keeps_all = gradients_ != nullptr && !options_.recompute_blocks;
  const int64_t hidden = config_.hidden_size, batch = options_.batch, seq = options_.seq;
  const bool uses_amax = UsesAmax();
  BlockActivations shared;
  const auto allocate = [&](bool has_attention, bool has_mlp, int64_t qkv, int64_t attention, int64_t q_heads,
                            int64_t intermediate) {
    const auto stored = [&](int64_t width) { return arena.Allocate("activations", options_.dtype, {rows_, width}); };
    BlockActivations block;
    if (uses_amax && (has_attention || has_mlp)) block.amax = arena.Allocate("activations", DType::kF32, {4});
    if (has_attention) {
      block.attention_normed = stored(hidden);
      block.attention_inv_rms = arena.Allocate("activations", DType::kF32, {rows_});
      block.qkv = stored(qkv);
      block.attention = stored(attention);
      block.lse = arena.Allocate("activations", DType::kF32, {batch, q_heads, seq});
    }
    if (has_attention && has_mlp) block.mid = stored(hidden);
    if (has_mlp) {
      block.mlp_normed = stored(hidden);
      block.mlp_inv_rms = arena.Allocate("activations", DType::kF32, {rows_});
      block.gate_up = stored(2 * intermediate);
      block.activated = stored(intermediate);
    }
    return block;
  };
  if (!keeps_all) {
    const auto largest = [&](auto&& size) { return Largest(shapes_, size); };
    const int64_t heads = largest([](const BlockShape& shape) { return shape.q_heads; });
    const int64_t wide = largest([](const BlockShape& shape) { return shape.intermediate; });
    shared = allocate(heads > 0, wide > 0, largest([&](const BlockShape& shape) { return config_.qkv_width(shape); }),
                      heads * config_.head_dim, heads, wide);
  }
  for (const BlockShape& shape : shapes_) {
    const int64_t qkv = config_.qkv_width(shape), attention = config_.attention_width(shape);
    if (keeps_all) {
      blocks_.push_back(
          allocate(shape.has_attention(), shape.has_mlp(), qkv, attention, shape.q_heads, shape.intermediate));
      NameAmax(sites_[blocks_.size() - 1], blocks_.back());
      continue;
    }
    BlockActivations block = shared;
    if (shape.has_attention()) {
      block.qkv = Part(shared.qkv, rows_, qkv);
      block.attention = Part(shared.attention, rows_, attention);
      block.lse = TensorView(shared.lse.data(), DType::kF32, {batch, shape.q_heads, seq});
    }
    if (shape.has_mlp()) {
      block.gate_up = Part(shared.gate_up, rows_, 2 * shape.intermediate);
      block.activated = Part(shared.activated, rows_, shape.intermediate);
    }
    blocks_.push_back(block);
    NameAmax(sites_[blocks_.size() - 1], blocks_.back());
  }
}

bool Network::UsesAmax() const {
  bool uses = false;
  ForEachSite(sites_, [&](const linear::LinearSite& site) { uses = uses || scheme_->UsesAmax(site); });
  return uses;
}

void Network::NameAmax(const BlockSites& sites, BlockActivations& block) const {
  if (!block.amax) return;
  const auto of = [&](const linear::LinearSite& site, int64_t i) {
    return scheme_->UsesAmax(site) ? block.amax.Slice(i, 1) : TensorView();
  };
  block.qkv_amax = of(sites.qkv, 0);
  block.output_amax = of(sites.output, 1);
  block.gate_up_amax = of(sites.gate_up, 2);
  block.down_amax = of(sites.down, 3);
}

kernels::AttentionShape Network::AttentionShapeOf(int64_t layer) const {
  const BlockShape& shape = shapes_[static_cast<size_t>(layer)];
  return {.batch = options_.batch,
          .seq = options_.seq,
          .q_heads = shape.q_heads,
          .kv_heads = shape.kv_heads,
          .head_dim = config_.head_dim,
          .kv_of_head = shape.kv_of_head.empty() ? nullptr : shape.kv_of_head.data()};
}

kernels::RopeArgs Network::RopeOf(int64_t layer, const TensorView& qkv) const {
  const BlockShape& shape = shapes_[static_cast<size_t>(layer)];
  return {.qkv = qkv,
          .table = rope_table_,
          .batch = options_.batch,
          .q_heads = shape.q_heads,
          .kv_heads = shape.kv_heads,
          .head_dim = config_.head_dim};
}

const TensorView& Network::MlpInput(int64_t layer) const {
  const auto index = static_cast<size_t>(layer);
  return shapes_[index].has_attention() ? blocks_[index].mid : residual_[index];
}

int64_t Network::WorkspaceBytes() const {
  const DType dtype = options_.dtype;
  const int64_t hidden = config_.hidden_size;
  int64_t bytes = kernels::LinearWorkspaceBytes(dtype, rows_, hidden, config_.vocab_size);
  ForEachSite(sites_, [&](const linear::LinearSite& site) { bytes = std::max(bytes, scheme_->WorkspaceBytes(site)); });
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    if (!shapes_[static_cast<size_t>(layer)].has_attention()) continue;
    const kernels::AttentionShape shape = AttentionShapeOf(layer);
    bytes = std::max(bytes, kernels::AttentionForwardWorkspaceBytes(shape, dtype, options_.threads));
    if (gradients_ == nullptr) continue;
    bytes = std::max(bytes, kernels::AttentionBackwardWorkspaceBytes(shape, dtype, options_.threads));
  }
  if (gradients_ == nullptr) return bytes;
  return std::max(
      {bytes, kernels::RmsNormBackwardWorkspaceBytes(rows_, hidden), kernels::EmbeddingBackwardWorkspaceBytes(rows_)});
}

}  // namespace trainyard::model
