// Trion: orthogonalised momentum in a subspace of fixed DCT vectors (Modoranu et al., arXiv:2505.17967; dct-lowrank.md
// 2.6). A matrix of rank r, at every update:
//
//   B = M + factor * G;   I = the r vectors along which B is largest;   b = B's coordinates there
//   M = B - (1 - mu) b P_r^T                  what was chosen decays, the rest is kept whole
//   o = NewtonSchulz(b)
//   w = w - lr (s o P_r^T + weight_decay w)
//
// s: max(1, sqrt(rows/cols)) (kj), 1 (none), 0.2 sqrt(max(rows, cols)) (kimi), sqrt(rows/cols) (dion). Newton-Schulz
// stores its matrices in the dtype of the weights. Vectors and matrices with a dimension of full_rank_min_dim or more
// take Adam without decay, at adam_learning_rate times the schedule's share of the peak. The gradients are overwritten.
// Every rank holds all of the state and computes all of the update.
//
// Memory of a matrix: moments (M) 4 rows cols bytes, indices 4 r. One basis of 4 n^2 for each distinct shorter side n.
#pragma once

#include <memory>
#include <vector>

#include "kernels/core/arena.h"
#include "worker/optim/fixed_basis.h"
#include "worker/optim/optimizer.h"

namespace trainyard::optim {

std::unique_ptr<Optimizer> MakeTrionOptimizer(const spec::TrionOptions& options,
                                              std::vector<OptimizerParameter> parameters, kernels::Arena& arena);

// With bases other than the option's.
std::unique_ptr<Optimizer> MakeTrionOptimizer(const spec::TrionOptions& options,
                                              std::vector<OptimizerParameter> parameters, BasisCache bases,
                                              kernels::Arena& arena);

}  // namespace trainyard::optim
