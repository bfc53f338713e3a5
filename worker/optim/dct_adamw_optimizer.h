// DCT-AdamW: Adam in a subspace of fixed DCT vectors that is chosen anew from the gradient (Modoranu et al.,
// arXiv:2505.17967; dct-lowrank.md 2.5). A matrix of rank r, at update t:
//
//   A = factor * G + E                               E = 0 without error feedback
//   refresh (t = 1 or t % update_gap = 0):  I = the r vectors along which A is largest;  a = A's coordinates there
//   E = quantized(A - a P_r^T)
//   rotate and refresh and t > 1:  columns of m and v follow their vectors; those of new vectors start at 0
//   m, v, u: Adam on a;   w = w - lr (u P_r^T + weight_decay w)
//
// Vectors and matrices with a dimension of full_rank_min_dim or more take plain AdamW with the same constants. The
// gradients are overwritten. Every rank holds all of the state and computes all of the update: gradients are the same
// bits on all ranks, and so are the choices made from them.
//
// Memory of a matrix, n and big its sides: moments 8 big r bytes, indices 4 r (8 r with rotation), error feedback rows
// * cols bytes (int8), half of that (int4) or four times that (full), and 8 a row of a quantized one. One basis of 4
// n^2 for each distinct n.
#pragma once

#include <memory>
#include <vector>

#include "kernels/core/arena.h"
#include "worker/optim/fixed_basis.h"
#include "worker/optim/optimizer.h"

namespace trainyard::optim {

std::unique_ptr<Optimizer> MakeDctAdamWOptimizer(const spec::DctAdamWOptions& options,
                                                 std::vector<OptimizerParameter> parameters, kernels::Arena& arena);

// With bases other than the option's.
std::unique_ptr<Optimizer> MakeDctAdamWOptimizer(const spec::DctAdamWOptions& options,
                                                 std::vector<OptimizerParameter> parameters, BasisCache bases,
                                                 kernels::Arena& arena);

}  // namespace trainyard::optim
