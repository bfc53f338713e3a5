#include "kernels/optim/dual_averaging.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/dual_averaging_internal.h"

namespace trainyard::kernels {
void DualAveraging(const DualAveragingArgs& args, Stream& stream) {
  for (const TensorView& x : {args.weight, args.anchor, args.dual, args.gradient}) {
    TY_CHECK(x.dtype() == DType::kF32);
    TY_CHECK_EQ(x.size(), args.weight.size());
  }
  TY_SELECT(stream, DualAveraging)(args, stream);
}

int64_t DualDriftWorkspaceBytes(int64_t elements) {
  return internal::DriftBlocks(elements) * static_cast<int64_t>(sizeof(double));
}

void DualDrift(const DualDriftArgs& args, Stream& stream) {
  TY_CHECK(args.dual.dtype() == DType::kF32 && args.gradient.dtype() == DType::kF32);
  TY_CHECK_EQ(args.dual.size(), args.gradient.size());
  TY_CHECK_EQ(args.drift.bytes(), int64_t{sizeof(double)});
  TY_CHECK_GE(args.workspace.bytes(), DualDriftWorkspaceBytes(args.dual.size()));
  TY_SELECT(stream, DualDrift)(args, stream);
}

}  // namespace trainyard::kernels
