#include "kernels/prune/admm_state.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/prune/admm_state_internal.h"
#include "kernels/prune/mask.h"

namespace trainyard::kernels {
void AdmmPoint(const AdmmPointArgs& args, Stream& stream) {
  TY_CHECK(args.w.dtype() == DType::kF32);
  TY_CHECK(args.x.dtype() == DType::kF32 || args.x.dtype() == DType::kBF16);
  TY_CHECK_EQ(args.x.size(), args.w.size());
  internal::CheckStored(args.dual, args.w.size());
  if (args.mask) TY_CHECK_EQ(args.mask.size(), MaskBytes(args.w.size()));
  TY_SELECT(stream, AdmmPoint)(args, stream);
}

void AdmmProject(const AdmmProjectArgs& args, Stream& stream) {
  TY_CHECK(args.w.dtype() == DType::kF32);
  TY_CHECK_EQ(args.mask.size(), MaskBytes(args.w.size()));
  internal::CheckStored(args.z, args.w.size());
  if (args.u) internal::CheckStored(args.u, args.w.size());
  TY_SELECT(stream, AdmmProject)(args, stream);
}

void AdmmResidual(const AdmmResidualArgs& args, Stream& stream) {
  TY_CHECK(args.w.dtype() == DType::kF32);
  TY_CHECK(args.x.dtype() == DType::kF32 || args.x.dtype() == DType::kBF16);
  TY_CHECK_EQ(args.x.size(), args.w.size());
  TY_CHECK_EQ(args.mask.size(), MaskBytes(args.w.size()));
  TY_CHECK_EQ(args.sums.size(), 2);
  TY_CHECK_GE(args.workspace.bytes(), AdmmResidualWorkspaceBytes(args.w.size()));
  TY_SELECT(stream, AdmmResidual)(args, stream);
}

int64_t AdmmResidualWorkspaceBytes(int64_t elements) {
  return internal::ResidualBlocks(elements) * static_cast<int64_t>(sizeof(internal::ResidualSums));
}

}  // namespace trainyard::kernels
