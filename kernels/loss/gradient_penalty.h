// How far the gradient of each sample is from length 1, and what its penalty gives back (WGAN-GP, arXiv:1704.00028;
// docs/methods/qoda.md, "The gradient penalty").
//
//   deviations[r] = |g_r|_2 - 1
//   g[r,:]        = scale * deviations[r] / |g_r|_2 * g[r,:]      0 where g_r = 0
//
// With scale = 2 lambda / rows, g becomes the derivative of lambda * mean_r deviations[r]^2 by g. gradient: (rows,
// cols) f32, overwritten; deviations: (rows) f32, overwritten. Sums of squares are f64, in an order that follows from
// the shape and the kind of device.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct GradientPenaltyArgs {
  TensorView gradient, deviations;
  double scale = 1;
};

void GradientPenalty(const GradientPenaltyArgs& args, Stream& stream);

}  // namespace trainyard::kernels
