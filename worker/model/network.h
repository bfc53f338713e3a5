// Forward and backward of a Llama-style network as an explicit list of op calls, layer by layer, over memory planned
// once.
//
//   x[0]  = embedding[tokens]
//   block l:  h = norm(x[l]);  qkv = rope(h Wqkv^T + b);  mid = x[l] + attention(qkv) Wo^T
//             h' = norm(mid);  x[l+1] = mid + swiglu(h' Wgu^T) Wd^T
//   logits = norm(x[L]) Whead^T;  losses = cross-entropy(logits, targets)
//
// Blocks may differ in heads and widths (BlockShape). One without attention has mid = x[l], one without an MLP
// x[l+1] = mid; neither costs anything for what it does not have, nor keeps it.
//
// N = batch * seq tokens. Kept for the backward, in elements a token and block (C hidden, K = (Hq + 2 Hkv) HS,
// A = Hq HS, D intermediate): x, h, mid, h' C each, qkv K, attention A, gate|up 2 D, swiglu D, and f32: two norms, Hq
// log-sum-exps. With recompute_blocks only x is kept for each block, the rest once for all blocks; with offload_inputs
// too, x is kept in the host's memory but for two (offloaded_inputs.h).
//
// Weights and activations are f32 or bf16, gradients of weights f32. The same bits for any number of threads,
// recompute_blocks or not, offload_inputs or not, and any head_chunks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/attention/attention.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/pointwise/rope.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/config.h"
#include "worker/model/linear_sites.h"
#include "worker/model/offloaded_inputs.h"
#include "worker/model/parameters.h"

namespace trainyard::model {

struct NetworkOptions {
  int64_t batch = 1;
  int64_t seq = 1;
  kernels::DType dtype = kernels::DType::kF32;
  bool recompute_blocks = false;
  bool offload_inputs = false;  // with recompute_blocks, on a device other than the CPU; if there are gradients
  // The head and its loss work on chunks of rows, so only about 1 / head_chunks of the logits exist at a time. A chunk
  // is a multiple of kHeadRows rows, so there may be fewer chunks.
  int head_chunks = 1;
  int threads = 1;                // of the stream: some ops' scratch depends on it
  bool weighted_targets = false;  // losses are multiplied by target_weights()
};

// Rows that are added into the head's gradient at a time, whatever the chunks: so chunks change no bit.
inline constexpr int64_t kHeadRows = 256;
int64_t HeadChunkRows(int64_t rows, int head_chunks);

class Network {
 public:
  // Takes memory from `arena` under "activations" and "workspace". `gradients` is null for a network that only
  // evaluates. All arguments are borrowed for the network's life; over a counting arena, nothing but the plan is made.
  Network(const ModelConfig& config, const NetworkOptions& options, const linear::LinearScheme* scheme,
          const NetworkTensors* weights, const NetworkTensors* gradients, kernels::Arena& arena);

  // Fills constant tables. Call once before the rest, not over a counting arena.
  void Prepare(kernels::Stream& stream);

  // i32 (batch, seq), to be filled by the caller; targets may be kIgnoreTarget.
  const kernels::TensorView& tokens() const { return tokens_; }
  const kernels::TensorView& targets() const { return targets_; }
  // f32 (batch * seq), to be filled by the caller; no view unless weighted_targets.
  const kernels::TensorView& target_weights() const { return target_weights_; }
  // f32 (batch * seq), of the last call.
  const kernels::TensorView& losses() const { return losses_; }

  struct StepArgs {
    float loss_scale = 1.0f;  // the gradient is that of loss_scale * sum of losses
    bool accumulate = false;  // add to the gradients instead of overwriting them
    linear::LinearRandom random = {};
    // Called when the gradients of a layer (Parameter::layer) are final, from the last layer to the first; may be null.
    const std::function<void(int layer)>* on_layer_ready = nullptr;
    // Called before anything is written into the gradients of a layer, but for the last layer, and for layer 0 if the
    // head is tied to it; may be null.
    const std::function<void(int layer)>* on_layer_begin = nullptr;
  };
  void ForwardBackward(const StepArgs& args, kernels::Stream& stream);

  // Losses only.
  void Forward(kernels::Stream& stream);

  // A forward of what tokens() holds that sets the parameters of the linear scheme (ModelConfig::site_parameters),
  // which live in the weights, layer by layer from the operands that come by.
  void CalibrateScheme(kernels::Stream& stream);

  // The forward up to logits (batch * seq, vocab_size) f32 or bf16 as the network, in memory of the caller. For checks.
  void ForwardLogits(const kernels::TensorView& logits, kernels::Stream& stream);

 private:
  struct BlockActivations {
    kernels::TensorView attention_normed, attention_inv_rms, qkv, attention, lse;
    kernels::TensorView mid, mlp_normed, mlp_inv_rms, gate_up, activated;
    // f32 (1) each, parts of `amax` (4): the largest magnitude of what goes into a layer, absent where the scheme does
    // not use it.
    kernels::TensorView amax, qkv_amax, output_amax, gate_up_amax, down_amax;
  };

  // The residual stream between two norms: what the next norm adds up. `added` is absent before the first block.
  struct Residual {
    kernels::TensorView stream, added;
  };

  void AllocateResiduals(kernels::Arena& arena);
  void AllocateBlocks(kernels::Arena& arena);
  int64_t WorkspaceBytes() const;
  bool UsesAmax() const;  // of any site
  void NameAmax(const BlockSites& sites, BlockActivations& block) const;
  kernels::AttentionShape AttentionShapeOf(int64_t layer) const;
  kernels::RopeArgs RopeOf(int64_t layer, const kernels::TensorView& qkv) const;
  // What the norm before the MLP normalises.
  const kernels::TensorView& MlpInput(int64_t layer) const;

  void ForwardTrunk(kernels::Stream& stream);
  // Around what makes x[layer], if it is the input of a block or the last one's output.
  void BeginInput(int64_t layer, kernels::Stream& stream) const;
  void EndInput(int64_t layer, kernels::Stream& stream) const;
  // y = norm(residual); the sum is stored as `sum`, which becomes the stream. `amax`: of y, optional.
  void AddAndNorm(Residual& residual, const kernels::TensorView& sum, const kernels::TensorView& weight,
                  const kernels::TensorView& y, const kernels::TensorView& inv_rms, const kernels::TensorView& amax,
                  kernels::Stream& stream);
  // From the normed input to the heads' outputs, and to the activated middle.
  void ForwardAttention(int64_t layer, kernels::Stream& stream);
  void ForwardMlp(int64_t layer, kernels::Stream& stream);
  // The product that writes to the residual stream; returns its output.
  kernels::TensorView ProjectAttention(int64_t layer, kernels::Stream& stream);
  kernels::TensorView ProjectMlp(int64_t layer, kernels::Stream& stream);
  // Makes a block's activations again from its input.
  void RecomputeBlock(int64_t layer, kernels::Stream& stream);
  void ForwardHead(bool with_gradients, const StepArgs& args, kernels::Stream& stream);
  // Cuts the rows of a chunk so that a row's logits and gradient have the same bits in chunks of any length.
  void ForHeadParts(int64_t count, absl::FunctionRef<void(int64_t row, int64_t rows)> body) const;
  void BackwardTrunk(const StepArgs& args, kernels::Stream& stream);
  linear::LinearCall BackwardCall(const linear::LinearSite& site, const kernels::TensorView& parameters,
                                  const kernels::TensorView& x_amax) const;
  void BackwardMlp(int64_t layer, bool accumulate, kernels::Stream& stream);
  void BackwardAttention(int64_t layer, bool accumulate, kernels::Stream& stream);

  const ModelConfig config_;
  const NetworkOptions options_;
  const linear::LinearScheme* const scheme_;
  const NetworkTensors* const weights_;
  const NetworkTensors* const gradients_;
  const int64_t rows_;
  const std::vector<BlockShape> shapes_;  // by block
  const std::vector<BlockSites> sites_;
  linear::LinearRandom random_;  // of the call in progress
  bool calibrates_ = false;      // the call in progress sets the scheme's parameters
  bool goes_back_ = false;       // the call in progress has a backward

  kernels::TensorView tokens_, targets_, target_weights_, losses_;
  kernels::TensorView rope_table_;
  std::vector<kernels::TensorView> residual_;   // x[0] .. x[L]; absent before a block that has nothing
  std::vector<BlockActivations> blocks_;        // with recompute_blocks, or without gradients, in the same memory
  int64_t last_block_ = -1;                     // the last one that has anything
  std::unique_ptr<OffloadedInputs> offloaded_;  // null without offload_inputs
  kernels::TensorView final_normed_, final_inv_rms_;
  kernels::TensorView narrow_;         // (N, max(C, A)): a block's output, or the gradient of a normed input
  kernels::TensorView wide_;           // (N, max(K, D)): gradient of qkv or of the activated middle
  kernels::TensorView residual_grad_;  // (N, C)
  // f32 (1): of the gradient that the next layer of the backward is given, if the scheme uses it. Each is used before
  // the next is made.
  kernels::TensorView gradient_amax_;
  kernels::TensorView logits_;  // one chunk
  kernels::TensorView workspace_;
};

}  // namespace trainyard::model
