#include "kernels/optim/clip_weights.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace internal {

void ClipWeightsCpu(const ClipWeightsArgs& args, Stream& stream);

}  // namespace internal

void ClipWeights(const ClipWeightsArgs& args, Stream& stream) {
  TY_CHECK(args.weight.dtype() == DType::kF32);
  TY_CHECK_GE(args.limit, 0.0f);
  TY_SELECT_HOST(stream, ClipWeights)(args, stream);
}

}  // namespace trainyard::kernels
