#include "kernels/loss/kl_divergence.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace internal {

void KlDivergenceCpu(const KlDivergenceArgs& args, Stream& stream);

}  // namespace internal

void KlDivergence(const KlDivergenceArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.p_logits.rank(), 2);
  TY_CHECK_GE(args.p_logits.dim(1), 1);
  TY_CHECK(SameShape(args.p_logits, args.q_logits));
  TY_CHECK_EQ(args.divergences.size(), args.p_logits.dim(0));
  TY_CHECK(args.divergences.dtype() == DType::kF32);
  TY_CHECK_LE(0, args.top_k);
  TY_CHECK_LE(args.top_k, args.p_logits.dim(1));
  TY_SELECT_HOST(stream, KlDivergence)(args, stream);
}

}  // namespace trainyard::kernels
