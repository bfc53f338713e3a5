#include "kernels/loss/gradient_penalty.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/loss/gradient_penalty_internal.h"

namespace trainyard::kernels {

void GradientPenalty(const GradientPenaltyArgs& args, Stream& stream) {
  TY_CHECK(args.gradient.dtype() == DType::kF32 && args.deviations.dtype() == DType::kF32);
  TY_CHECK_EQ(args.gradient.dim(0), args.deviations.size());
  if (args.gradient.size() == 0) return;
  TY_SELECT(stream, GradientPenalty)(args, stream);
}

}  // namespace trainyard::kernels
