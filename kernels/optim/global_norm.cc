#include "kernels/optim/global_norm.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/global_norm_internal.h"

namespace trainyard::kernels {
void GlobalNorm(const GlobalNormArgs& args, Stream& stream) {
  for (const TensorView& x : args.tensors) TY_CHECK(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16);
  TY_CHECK(args.norm.dtype() == DType::kF32);
  TY_CHECK_EQ(args.norm.size(), 1);
  if (args.clip_factor) {
    TY_CHECK(args.clip_factor.dtype() == DType::kF32);
    TY_CHECK_EQ(args.clip_factor.size(), 1);
  }
  TY_CHECK_GE(args.grad_scale, 0.0f);
  TY_CHECK_GE(args.max_norm, 0.0f);
  TY_CHECK_GE(args.workspace.bytes(), GlobalNormWorkspaceBytes(args.tensors));
  TY_SELECT(stream, GlobalNorm)(args, stream);
}

int64_t GlobalNormWorkspaceBytes(absl::Span<const TensorView> tensors) {
  return internal::NormBlocks(tensors) * static_cast<int64_t>(sizeof(double));
}

}  // namespace trainyard::kernels
