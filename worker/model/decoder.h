// Runs a network forward on one growing sequence, keeping the keys and values of what it has seen.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/attention/attention.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/config.h"
#include "worker/model/linear_sites.h"
#include "worker/model/parameters.h"

namespace trainyard::model {

struct DecoderOptions {
  int64_t max_positions = 0;  // prompt and generated tokens together, at most config.max_positions
  kernels::DType dtype = kernels::DType::kF32;
  int threads = 1;  // of the stream
};

// Not thread-safe.
class Decoder {
 public:
  // Memory under "kv_cache" and "decoder". Borrows scheme and weights. Over a counting arena nothing but the plan is
  // made.
  Decoder(const ModelConfig& config, const DecoderOptions& options, const linear::LinearScheme* scheme,
          const NetworkTensors* weights, kernels::Arena& arena);
  // Call once, not over a counting arena.
  void Prepare(kernels::Stream& stream);

  // Appends `tokens` (at least one; ids below vocab_size; not beyond max_positions) and returns the logits, f32 or bf16
  // (1, vocab_size), for what follows; valid until the next call. A first call takes all tokens at once, later ones one
  // by one; the logits are those of the whole sequence's forward, up to rounding (and, under a scheme whose quantizers
  // look at a whole tensor, up to quantization).
  kernels::TensorView Feed(absl::Span<const int32_t> tokens, kernels::Stream& stream);

  void Reset() { length_ = 0; }
  int64_t length() const { return length_; }
  int64_t max_positions() const { return options_.max_positions; }

 private:
  kernels::AttentionShape AttentionShapeOf(int64_t layer, int64_t rows) const;
  void Run(absl::Span<const int32_t> tokens, kernels::Stream& stream);
  // The sublayers of a block: from `normed_` to `out_`, of `rows` new tokens.
  void RunAttention(int64_t layer, int64_t rows, kernels::Stream& stream);
  void RunMlp(int64_t layer, int64_t rows, kernels::Stream& stream);

  const ModelConfig config_;
  const DecoderOptions options_;
  const linear::LinearScheme* const scheme_;
  const NetworkTensors* const weights_;
  const std::vector<BlockShape> shapes_;  // by block
  const std::vector<BlockSites> sites_;
  int64_t length_ = 0;

  kernels::TensorView rope_table_;
  std::vector<kernels::TensorView> k_cache_, v_cache_;  // by block; absent without attention
  kernels::TensorView tokens_, residual_, normed_, inv_rms_, qkv_, attention_, lse_, out_, gate_up_, activated_;
  kernels::TensorView logits_, workspace_;
};

}  // namespace trainyard::model
