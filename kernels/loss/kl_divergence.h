// Kullback-Leibler divergence of two softmaxes over the vocabulary, row by row, without gradients.
//
//   p = softmax(p_logits[i,:]), q = softmax(q_logits[i,:]);   divergences[i] = sum_j p_j (log p_j - log q_j)
//
// With top_k > 0 both softmaxes are over the top_k words with the largest p_logits only (of equal ones the lower
// index): both are renormalised there.
//
// p_logits, q_logits: (n, V), each f32 or bf16; divergences: f32 (n), overwritten. Row maxima are taken out first;
// exponentials are f32, their sums f64. Words with p_j = 0 count for nothing; a word that q rules out (-inf) while p
// does not makes the divergence infinite; a NaN or +inf logit makes it NaN. Equal rows give exactly 0. Not symmetric.
// The same bits for any number of threads.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct KlDivergenceArgs {
  TensorView p_logits, q_logits;
  TensorView divergences;
  int64_t top_k = 0;  // 0: all; at most V
};
void KlDivergence(const KlDivergenceArgs& args, Stream& stream);

}  // namespace trainyard::kernels
