// The formulas of learned steps (lsq.h) and the order of their sums, as every backend computes them: each line is one
// correctly rounded operation or an explicit fused multiply-add.
#pragma once

#include <cstdint>

#include "kernels/quant/quest_formula.h"

namespace trainyard::kernels {

// Partial sums of a row, by column modulo this, and of all rows, by row modulo this. They are added by neighbours:
// s[i] + s[i + 1] for even i, then pairs, then fours.
inline constexpr int kLsqPartials = 256;

// The largest value of the grid, in steps.
TY_INLINE float LsqHalfLevels(int bits) {
  return static_cast<float>((1 << bits) - 1) * 0.5f;
}

TY_INLINE float LsqUsedStep(float step) {
  return step < kQuestEpsilon ? kQuestEpsilon : step;  // NaN stays
}

TY_INLINE float LsqAddMagnitude(float v, float sum) {
  return sum + __builtin_fabsf(v);
}

// sum + gradient * (what the value moves by when the step grows by one).
TY_INLINE float LsqAddStepGradient(float v, float gradient, float step, float half_levels, float sum) {
  const float level = QuestLevel(v, step, 0.5f - half_levels, 0.5f + half_levels);
  const float inside = (level - 0.5f) - v / step;
  const float outside = v > 0 ? half_levels : -half_levels;
  return __builtin_fmaf(gradient, __builtin_fabsf(v) <= half_levels * step ? inside : outside, sum);
}

// `root`: of the half levels.
TY_INLINE float LsqFirstStepOf(double sum_of_magnitudes, int64_t size, double root) {
  return LsqUsedStep(static_cast<float>(2 * (sum_of_magnitudes / static_cast<double>(size)) / root));
}

}  // namespace trainyard::kernels
