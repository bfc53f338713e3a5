// Cross-entropy of a softmax over the vocabulary, fused with its gradient.
//
//   lse[i] = log sum_j exp(logits[i,j]);   losses[i] = lse[i] - logits[i, target[i]]
//   dlogits[i,j] = (exp(logits[i,j] - lse[i]) - [j == target[i]]) * grad_scale
//
// With weights, losses[i] and dlogits[i,:] are multiplied by weights[i] too.
//
// logits: (n, V) f32 or bf16; targets: i32 (n), each in [0, V) or kIgnoreTarget, whose loss and gradient are 0 whatever
// the logits; losses: f32 (n). The row maximum is taken out first, so no finite logits overflow. A row with a NaN or
// +inf logit has a NaN loss. Sums are f32 over fixed lanes (or a device's threads) and f64 over these: the same bits
// on any thread count.
//
// The caller loops over chunks of rows (head GEMM, this, two gradient GEMMs), so that (N, V) is never kept whole, and
// passes grad_scale = 1 / (tokens of the whole step).
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

inline constexpr int32_t kIgnoreTarget = -100;

struct CrossEntropyArgs {
  TensorView logits;   // (n, V); the backward overwrites it with dlogits
  TensorView targets;  // i32 (n)
  TensorView losses;   // f32 (n), overwritten
  float grad_scale = 1.0f;
  TensorView weights = {};  // f32 (n), optional
};

// Losses only; logits are kept. grad_scale is not used.
void CrossEntropyForward(const CrossEntropyArgs& args, Stream& stream);

// Losses, and dlogits in place of the logits.
void CrossEntropyForwardBackward(const CrossEntropyArgs& args, Stream& stream);

}  // namespace trainyard::kernels
