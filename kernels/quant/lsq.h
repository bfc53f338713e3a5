// Learned step sizes (LSQ; Esser et al., arXiv:1902.08153) on the grid of QuEST, which has no zero: one step s for a
// whole tensor v = x H (H of `rotate_group` columns, or none). Quantization itself is QuestQuantize with given steps.
//
//   v_hat = (q - 1/2) s,  q = clamp(round(v / s + 1/2)),  clip = (2^b - 1)/2 s
//   first step   s = 2 mean |v| / sqrt((2^b - 1)/2)
//   gradient     dL/ds = scale sum dv_hat o (|v| <= clip ? (v_hat - v)/s : sign(v) (2^b - 1)/2)
//
// A step that is not above the 1e-8 counts as 1e-8. `step` and `step_gradient` hold one number. Sums are f32 for the
// columns of a row that are equal modulo 256, in order; then f64, over those by neighbours, over the rows that are
// equal modulo 256 in order, and over those by neighbours (lsq_formula.h): the same bits for any number of threads.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct LsqFirstStepArgs {
  TensorView x;  // f32 or bf16 (rows, cols)
  int bits = 4;  // 1..8
  int64_t rotate_group = 0;
  TensorView step;       // f32 or bf16 (1), overwritten
  TensorView workspace;  // LsqWorkspaceBytes(rows), aligned to 8
};
void LsqFirstStep(const LsqFirstStepArgs& args, Stream& stream);

// steps[r] = step for all rows, as QuestQuantize takes them.
struct LsqRowStepsArgs {
  TensorView step;   // f32 or bf16 (1)
  TensorView steps;  // f32 (rows), overwritten
};
void LsqRowSteps(const LsqRowStepsArgs& args, Stream& stream);

struct LsqStepGradientArgs {
  TensorView x;  // f32 or bf16 (rows, cols)
  int bits = 4;
  int64_t rotate_group = 0;
  TensorView step;      // f32 or bf16 (1)
  TensorView gradient;  // dv_hat: f32 or bf16, shape of x, in the domain of v
  float scale = 1;
  TensorView step_gradient;  // f32 (1); added to
  TensorView workspace;      // LsqWorkspaceBytes(rows)
};
void LsqStepGradient(const LsqStepGradientArgs& args, Stream& stream);

inline int64_t LsqWorkspaceBytes(int64_t rows) {
  return 8 * rows;
}

}  // namespace trainyard::kernels
