#include "kernels/prune/admm_prox.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/prune/admm_prox_internal.h"

namespace trainyard::kernels {
void AdmmProx(const AdmmProxArgs& args, Stream& stream) {
  TY_CHECK(args.grad.dtype() == DType::kF32);
  TY_CHECK(args.x.dtype() == DType::kF32 || args.x.dtype() == DType::kBF16);
  TY_CHECK_EQ(args.x.size(), args.grad.size());
  internal::CheckStored(args.z, args.grad.size());
  if (args.u) internal::CheckStored(args.u, args.grad.size());
  if (args.gradient_factor) TY_CHECK_EQ(args.gradient_factor.size(), 1);
  TY_SELECT(stream, AdmmProx)(args, stream);
}

}  // namespace trainyard::kernels
