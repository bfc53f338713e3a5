// Squared Frechet (Wasserstein-2) distance of the two Gaussians that have the means and covariances of two sets of
// features (Heusel et al., NeurIPS 2017, "FID", there with features of Inception):
//
//   |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^(1/2) C_b C_a^(1/2))^(1/2))
//
// in f64, square roots by eigenvalues. Figures are comparable only between equal features and equal counts (few samples
// give too large ones).
#pragma once

#include "absl/status/statusor.h"
#include "kernels/core/tensor.h"

namespace trainyard::train {

// a: f32 (n, d), b: f32 (m, d); n, m >= 2, d <= 1024. InvalidArgument if a value is not finite.
absl::StatusOr<double> FrechetDistance(const kernels::TensorView& a, const kernels::TensorView& b);

}  // namespace trainyard::train
