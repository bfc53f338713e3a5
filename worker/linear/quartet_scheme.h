// Quartet (arXiv:2505.14669; shared/methods/quartet.md 2.3, 2.4; docs/methods/quartet.md): all three products of a
// layer in MXFP4.
//
//   forward   x_h = F(x H), w_h = F(w H)            y = x_h w_h^T + bias
//   dx        c [B(dy H S) B(w_h^T H S)^T]          dx = (M_x o that) H
//   dw        c [B(dy^T H S') B(x_h^T H S')^T]      dw = (M_w o that) H
//   db        sum of dy
//
// F: scales by QuEST's clip point, or by the largest magnitude with range 3/4 (ablations); M: its mask, where nothing
// was clipped. B: scales by the largest magnitude with range 3/4, rounding to nearest or stochastic; c = 16/9 makes up
// for the two ranges. The H of the forward has no signs; those of the backward have new ones for each product and call.
// x_h and w_h are made again in the backward. With forward_method kNone operands are rotated (rounded to the storage
// dtype) but not quantized; with backward_method kNone the backward uses x_h, w_h and dy as they are.
//
// Emulated: operands as numbers of the storage dtype, which holds code * scale exactly, sums in f32, the ranges behind
// the product, gradients in f32 until they are rotated back. Sizes: spec::MultiplesOf.
#pragma once

#include <memory>

#include "proto/spec/linear_options.h"
#include "worker/linear/linear_scheme.h"
#include "worker/linear/mask_probe.h"

namespace trainyard::linear {

std::unique_ptr<LinearScheme> MakeQuartetScheme(const spec::LinearQuartet& options);

// Of the masks of its backward; null without masks.
std::unique_ptr<MaskProbe> MakeQuartetMaskProbe(const spec::LinearQuartet& options);

// For tests: every rotation and transpose of the scheme, with quantizers that change nothing. f32 storage only.
std::unique_ptr<LinearScheme> MakeUnquantizedQuartetScheme(const spec::LinearQuartet& options);

}  // namespace trainyard::linear
