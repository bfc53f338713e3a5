// Elsa: training under a sparsity constraint by ADMM with Adam inside (Lee et al., arXiv:2510.01650; shared/methods/
// elsa.md 2.2). With step index t from 0, for every pruned tensor x:
//
//   1  g = clipped gradient + lambda (x - z + u)
//   2  x: Adam on g (decoupled weight decay, if any)
//   3  if t mod interval = 0:  u *= dual_factor (elsa_penalty.h);  w = x + u;  z = Project(w);  u = w - z
//
// At the start z is x projected by magnitude, u = 0. Project keeps all but the floor(numel * sparsity) lowest scores of
// a tensor, or of all tensors together (scope model), or the best N of M neighbours in a row; score w^2 v with Adam's
// second moment v (the diagonal empirical Fisher), or |w| (kernels/prune/prune_select.h). lambda is not divided by the
// number of ranks unless asked for.
//
// Pruned are the matrices of the blocks ("layers.*", two dimensions), each of their parts by itself (q, k, v, gate,
// up), but those that a pattern of `exclude` matches by the name of the parameter or of the part. All others train by
// Adam. Merged states (s: z where kept, -u where pruned) and separate ones give the same bits while they are stored as
// f32.
//
// State under elsa.m, elsa.v (with int8 moments also .scale), elsa.s or elsa.z and elsa.u (with FP8 also .scale),
// elsa.mask, elsa.first_mask. Gradients of pruned tensors are used as scratch.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "worker/optim/optimizer.h"

namespace trainyard::optim {

// InvalidArgument if a pattern N:M does not divide the rows of a pruned matrix, or nothing is pruned.
absl::Status CheckElsa(const spec::ElsaOptions& options, const std::vector<OptimizerParameter>& parameters);

// Adam's moments are booked under "moments", the rest under "pruning" and "workspace".
//
// Metrics of updates that project: elsa_lambda; elsa_sparsity (share of pruned elements); elsa_mask_flips and
// elsa_mask_iou against the last projection, elsa_first_mask_flips against the start, the flips as shares of all
// elements; elsa_residual |x - z| / |x|.
std::unique_ptr<Optimizer> MakeElsaOptimizer(const spec::ElsaOptions& options,
                                             std::vector<OptimizerParameter> parameters, kernels::Arena& arena);

}  // namespace trainyard::optim
