// SparseGPT on one matrix (Frantar and Alistarh, arXiv:2301.00774): with H = X^T X + damping mean(diag) 1 and U the
// upper Cholesky factor of H^-1 (kernels/prune/linalg/cholesky.h), columns from the left:
//
//   mask of a block of columns: lowest (w_ij / U_jj)^2; of N:M, group by group when its first column is reached
//   e_i = (w_ij - q_ij) / U_jj, q_ij = 0 where pruned, else w_ij
//   w_i,j.. -= e_i U_j,j..     inside the block at once, behind it when the block is done
//
// In double.
#pragma once

#include "worker/prune/one_shot.h"

namespace trainyard::prune {

absl::Status PruneBySparseGpt(const OneShotOptions& options, const InputMoments& moments, const kernels::TensorView& w,
                              std::vector<uint8_t>* kept, kernels::Stream& stream);

}  // namespace trainyard::prune
