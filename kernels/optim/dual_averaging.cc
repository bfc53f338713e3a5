#include "kernels/optim/dual_averaging.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace internal {

void DualAveragingCpu(const DualAveragingArgs& args, Stream& stream);

}  // namespace internal

void DualAveraging(const DualAveragingArgs& args, Stream& stream) {
  for (const TensorView& x : {args.weight, args.anchor, args.dual, args.gradient}) {
    TY_CHECK(x.dtype() == DType::kF32);
    TY_CHECK_EQ(x.size(), args.weight.size());
  }
  TY_SELECT_HOST(stream, DualAveraging)(args, stream);
}

}  // namespace trainyard::kernels
