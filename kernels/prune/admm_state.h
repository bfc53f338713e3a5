// The variables z (sparse copy) and u (scaled dual) of ADMM under a sparsity constraint (arXiv:2510.01650;
// shared/methods/elsa.md 2.2, step 4, and 2.7).
//
//   AdmmPoint     w = x + dual_factor * u                                what is projected
//   AdmmProject   z = w where kept, 0 elsewhere;  u = w - z              the update of both after the mask is chosen
//   AdmmResidual  sum (x - z)^2 and sum x^2                              z as AdmmProject makes it, before storage
//
// u + x - z = w - z is 0 where an element is kept and w where it is pruned, so the supports never overlap and one
// tensor can hold both ("merged"): s = w where kept, -w where pruned. Masks are bits, element i in bit i % 8 of byte i
// / 8, set where kept, (n + 7) / 8 bytes. The same bits for any number of threads.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/prune/stored_tensor.h"

namespace trainyard::kernels {

struct AdmmPointArgs {
  TensorView x;              // f32 or bf16 (n)
  StoredTensor dual;         // (n): u; with `mask`, s: u is -s where pruned and 0 where kept
  TensorView mask = {};      // u8, of the last projection; with merged states only
  float dual_factor = 1.0f;  // lambda before its last change over lambda now
  TensorView w;              // f32 (n), overwritten
};
void AdmmPoint(const AdmmPointArgs& args, Stream& stream);

struct AdmmProjectArgs {
  TensorView w;          // f32 (n)
  TensorView mask;       // u8, of this projection
  bool has_dual = true;  // false: u = 0, as at the start
  // Results, overwritten with their scales.
  StoredTensor z;       // (n); s if there is no u
  StoredTensor u = {};  // (n); absent: merged
};
void AdmmProject(const AdmmProjectArgs& args, Stream& stream);

struct AdmmResidualArgs {
  TensorView x;          // f32 or bf16 (n)
  TensorView w;          // f32 (n)
  TensorView mask;       // u8
  TensorView sums;       // f32 (2), overwritten: sum (x - z)^2, sum x^2
  TensorView workspace;  // u8, AdmmResidualWorkspaceBytes, aligned to 8
};
void AdmmResidual(const AdmmResidualArgs& args, Stream& stream);
int64_t AdmmResidualWorkspaceBytes(int64_t elements);

}  // namespace trainyard::kernels
