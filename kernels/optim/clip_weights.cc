#include "kernels/optim/clip_weights.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/clip_weights_internal.h"

namespace trainyard::kernels {
void ClipWeights(const ClipWeightsArgs& args, Stream& stream) {
  TY_CHECK(args.weight.dtype() == DType::kF32);
  TY_CHECK_GE(args.limit, 0.0f);
  TY_SELECT(stream, ClipWeights)(args, stream);
}

}  // namespace trainyard::kernels
