#pragma once

#include "kernels/core/simd.h"
#include "kernels/optim/adamw_formula.h"
#include "kernels/optim/blockwise/adamw_int8.h"

namespace trainyard::kernels::internal {

inline AdamWConstants<float> AdamWInt8Constants(const AdamWInt8Args& args) {
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

// A block whose largest value has no finite inverse is stored as zeros.
TY_INLINE float InverseOfMomentScale(float scale) {
  return scale > 1e-38f ? 1.0f / scale : 0.0f;
}

void AdamWInt8Cpu(const AdamWInt8Args& args, Stream& stream);
void AdamWInt8Cuda(const AdamWInt8Args& args, Stream& stream);

}  // namespace trainyard::kernels::internal
