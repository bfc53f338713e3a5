// The pull of the augmented Lagrangian of ADMM on the gradient, behind clipping and before Adam (arXiv:2510.01650;
// shared/methods/elsa.md 2.2, step 2).
//
//   separate  g = g * gradient_factor + lambda ((x - z) + u)
//   merged    g = g * gradient_factor + lambda (x - s)            s = z where kept, -u where pruned
//
// z and u never overlap, so both forms give the same bits as long as the states are stored exactly. Element-wise: the
// same bits for any number of threads.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/prune/stored_tensor.h"

namespace trainyard::kernels {

struct AdmmProxArgs {
  TensorView grad;                  // f32 (n), updated
  TensorView x;                     // f32 or bf16 (n)
  StoredTensor z;                   // (n): z, or s if there is no u
  StoredTensor u = {};              // (n); absent: merged
  TensorView gradient_factor = {};  // optional, f32 (1): the clip factor
  float lambda = 0.0f;
};
void AdmmProx(const AdmmProxArgs& args, Stream& stream);

}  // namespace trainyard::kernels
