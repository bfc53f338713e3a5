#pragma once

#include "kernels/optim/adamw.h"
#include "kernels/optim/adamw_formula.h"

namespace trainyard::kernels::internal {

inline AdamWConstants<float> AdamWConstantsOf(const AdamWArgs& args) {
  return {
      .lr = args.lr,
      .beta1 = args.beta1,
      .beta2 = args.beta2,
      .eps = args.eps,
      .weight_decay = args.weight_decay,
      .inverse_correction1 = InverseCorrection(args.beta1, args.step),
      .inverse_correction2 = InverseCorrection(args.beta2, args.step),
  };
}

void AdamWCpu(const AdamWArgs& args, Stream& stream);
void AdamWCuda(const AdamWArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
