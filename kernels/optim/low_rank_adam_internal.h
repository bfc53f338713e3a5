#pragma once

#include "kernels/optim/adamw_formula.h"
#include "kernels/optim/low_rank_adam.h"

namespace trainyard::kernels::internal {

inline AdamWConstants<float> LowRankAdamConstants(const LowRankAdamArgs& args) {
  return {
      .lr = 0,
      .beta1 = args.beta1,
      .beta2 = args.beta2,
      .eps = args.eps,
      .weight_decay = 0,
      .inverse_correction1 = InverseCorrection(args.beta1, args.step),
      .inverse_correction2 = InverseCorrection(args.beta2, args.step),
  };
}

void LowRankAdamCpu(const LowRankAdamArgs& args, Stream& stream);
void LowRankAdamCuda(const LowRankAdamArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
