// Pushes the singular values of a matrix towards 1 and keeps its singular vectors: the orthogonalisation of Muon and
// Trion (dct-lowrank.md 2.6).
//
//   X = x / (||x||_F + 1e-7);   `steps` times:  A = X X^T,  X = a X + (b A + c A^2) X
//
// with A = X^T X on the right instead where that is the smaller one. (a, b, c) is (3.4445, -4.7750, 2.0315) in every
// step (kFixed), or changes from step to step (kScheduled; five sets, the last of which serves all later steps).
// Neither converges: the values end in a band around 1. x: f32 (rows, cols), overwritten with the result. Products
// accumulate in f32; X and A are stored in `precision`, f32 or bf16, between them.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

enum class NewtonSchulzCoefficients { kFixed, kScheduled };

struct NewtonSchulzArgs {
  TensorView x;
  int steps = 5;
  NewtonSchulzCoefficients coefficients = NewtonSchulzCoefficients::kFixed;
  DType precision = DType::kF32;
  TensorView workspace;  // NewtonSchulzWorkspaceBytes, aligned to 64
};
void NewtonSchulz(const NewtonSchulzArgs& args, Stream& stream);

int64_t NewtonSchulzWorkspaceBytes(int64_t rows, int64_t cols, DType precision);

}  // namespace trainyard::kernels
