// Points of the plane as a picture: what a sample grid is to generators of images.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/tensor.h"

namespace trainyard::train {

inline constexpr int64_t kScatterExtent = 256;  // pixels, square

// Draws `real` red and `generated` green on black, f32 (n, 2) each, into RGB (3, kScatterExtent, kScatterExtent) of
// [-1, 1]. The square around the real points, a quarter larger than they need, is what is seen; what lies outside is
// not drawn. Empty sets are fine.
std::vector<float> ScatterPlot(const kernels::TensorView& real, const kernels::TensorView& generated);

}  // namespace trainyard::train
