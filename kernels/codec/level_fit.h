// Level tables: the fixed ones, and those fitted to a distribution (ALQ, arXiv:2010.12460; shared/methods/qoda.md 2.4).
//
//   Psi(l) = sum_j integral over [l_j, l_{j+1}] of (l_{j+1} - u)(u - l_j) dF(u)
//
// F is a LevelHistogram, so Psi is the expected squared error of LevelEncode on the data the histogram was made from.
// Pure functions in f64; tables are f32 from exactly 0 to exactly 1 with gaps of at least kLevelGap.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "kernels/codec/level_histogram.h"

namespace trainyard::kernels {

inline constexpr float kLevelGap = 1e-6f;

// `steps` levels above 0, so steps + 1 in all: 2^(b-1) - 1 steps for codes of b bits. steps >= 1.
std::vector<float> UniformLevels(int steps);      // j / steps (QSGD)
std::vector<float> ExponentialLevels(int steps);  // 0, 2^-(steps-1), ..., 1/2, 1 (NUQSGD); steps <= 127

double LevelError(const LevelHistogram& histogram, absl::Span<const float> levels);  // Psi

// Coordinate descent: each sweep puts every inner level, in order, where Psi is least given its neighbours
//
//   l_j <- F^-1( F(d) - (1 / (d - c)) * integral over [c, d] of (u - c) dF(u) ),  c = l_{j-1}, d = l_{j+1}
//
// Psi never rises, but for the gaps that are kept.
std::vector<float> FitLevels(const LevelHistogram& histogram, absl::Span<const float> start, int sweeps);

inline constexpr int kFitSweeps = 30;  // as ALQ; within 0.1 % of the optimum for up to 8 levels

// The best of fits from quantiles, uniform levels, exponential levels and `current`; but `current` itself unless Psi
// drops by more than 1 %, since a histogram of few buckets is noisy.
std::vector<float> RefitLevels(const LevelHistogram& histogram, absl::Span<const float> current,
                               int sweeps = kFitSweeps);

}  // namespace trainyard::kernels
