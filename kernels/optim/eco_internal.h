#pragma once

#include "kernels/optim/eco.h"
#include "kernels/optim/eco_formula.h"

namespace trainyard::kernels::internal {

inline EcoConstants<float> EcoConstantsOf(const EcoArgs& args) {
  return MakeEcoConstants<float>({.form = args.form,
                                  .lr = args.lr,
                                  .beta1 = args.beta1,
                                  .beta2 = args.beta2,
                                  .eps = args.eps,
                                  .weight_decay = args.weight_decay,
                                  .step = args.step,
                                  .inject = args.inject,
                                  .decay_correction = args.decay_correction,
                                  .min_learning_rate = args.min_learning_rate});
}

void EcoCpu(const EcoArgs& args, Stream& stream);
void EcoCuda(const EcoArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
