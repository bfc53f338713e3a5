#include "kernels/optim/low_rank_adam.h"

#include "kernels/core/dispatch.h"
#include "kernels/optim/low_rank_adam_internal.h"

namespace trainyard::kernels {
void LowRankAdam(const LowRankAdamArgs& args, Stream& stream) {
  for (const TensorView& x : {args.a, args.m, args.v}) {
    TY_CHECK(x.dtype() == DType::kF32);
    TY_CHECK_EQ(x.size(), args.a.size());
  }
  if (args.gradient_factor) {
    TY_CHECK(args.gradient_factor.dtype() == DType::kF32);
    TY_CHECK_EQ(args.gradient_factor.size(), 1);
  }
  TY_CHECK_GE(args.step, 1);
  TY_SELECT(stream, LowRankAdam)(args, stream);
}

}  // namespace trainyard::kernels
