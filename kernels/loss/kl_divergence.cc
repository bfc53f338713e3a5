#include "kernels/loss/kl_divergence.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/loss/kl_divergence_internal.h"

namespace trainyard::kernels {
void KlDivergence(const KlDivergenceArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.p_logits.rank(), 2);
  TY_CHECK_GE(args.p_logits.dim(1), 1);
  TY_CHECK(SameShape(args.p_logits, args.q_logits));
  TY_CHECK_EQ(args.divergences.size(), args.p_logits.dim(0));
  TY_CHECK(args.divergences.dtype() == DType::kF32);
  TY_CHECK_LE(0, args.top_k);
  TY_CHECK_LE(args.top_k, args.p_logits.dim(1));
  TY_SELECT(stream, KlDivergence)(args, stream);
}

}  // namespace trainyard::kernels
