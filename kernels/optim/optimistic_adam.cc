#include "kernels/optim/optimistic_adam.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace internal {

void OptimisticAdamCpu(const OptimisticAdamArgs& args, Stream& stream);
void OptimisticAdamCuda(const OptimisticAdamArgs& args, Stream& stream);

}  // namespace internal

void OptimisticAdam(const OptimisticAdamArgs& args, Stream& stream) {
  for (const TensorView& x : {args.weight, args.gradient, args.m, args.v}) {
    TY_CHECK(x.dtype() == DType::kF32);
    TY_CHECK_EQ(x.size(), args.weight.size());
  }
  for (const TensorView& x : {args.base, args.previous}) {
    if (!x) continue;
    TY_CHECK(x.dtype() == DType::kF32);
    TY_CHECK_EQ(x.size(), args.weight.size());
  }
  TY_CHECK_GE(args.step, 1);
  TY_SELECT(stream, OptimisticAdam)(args, stream);
}

}  // namespace trainyard::kernels
