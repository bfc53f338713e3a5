// QuEST (arXiv:2502.05003; docs/methods/quest.md): weights and activations of 1 to 8 bits, gradients in full precision.
//
//   forward    y = x_hat_h w_hat_h^T + bias                  x_hat_h = quantized(x H), w_hat_h = quantized(w H)
//   backward   dx = (M_x o (dy w_hat_h)) H,  dw = (M_w o (dy^T x_hat_h)) H,  db = sum of dy
//
// H: block Hadamard along the inputs, or none. M: the mask of kernels/quant/quest.h. What is not quantized has no mask,
// and what is not rotated is not rotated back (quest_operands.h). With projection lsq, two learned steps a layer, of
// the weights and of the activations (kernels/quant/lsq.h). The products are emulated: their operands are dequantized
// values in the storage dtype (in f32 the value itself, in bf16 that rounded), sums are f32, and gradients stay f32
// until they are rotated back. Stateless: the backward quantizes again, which costs a pass over x and w.
#pragma once

#include <memory>

#include "proto/spec/linear_options.h"
#include "worker/linear/linear_scheme.h"
#include "worker/linear/mask_probe.h"

namespace trainyard::linear {

std::unique_ptr<LinearScheme> MakeQuestScheme(const spec::LinearQuest& options);

// Of the masks of its backward; null if no operand has one.
std::unique_ptr<MaskProbe> MakeQuestMaskProbe(const spec::LinearQuest& options);

}  // namespace trainyard::linear
