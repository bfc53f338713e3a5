// Sliced Wasserstein-2 distance of two sets of points (Bonneel et al., J. Math. Imaging Vis. 2015):
//
//   SW^2 = mean over directions theta of W_2^2(theta . a, theta . b)
//
// with directions uniform on the sphere (Philox, kRandomProjection) and the one-dimensional W_2 exact, by sorting.
// Equal Gaussians shifted by delta in d dimensions: SW = |delta| / sqrt(d). Two draws of n points of one distribution
// still differ by about n^(-1/2) of its spread: compare with that of real against real.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::train {

// a: f32 (n, d), b: f32 (m, d), or of higher rank with the same first axis; n, m >= 1. NaN if a value is not finite.
// A function of its arguments, whatever the threads.
double SlicedWasserstein(const kernels::TensorView& a, const kernels::TensorView& b, int projections, uint64_t seed,
                         kernels::Stream& stream);

}  // namespace trainyard::train
