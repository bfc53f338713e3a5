#include "kernels/optim/adamw.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/adamw_internal.h"

namespace trainyard::kernels {

void AdamW(const AdamWArgs& args, Stream& stream) {
  for (const TensorView& x : {args.param, args.grad, args.v}) {
    TY_CHECK(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16);
    TY_CHECK_EQ(x.size(), args.param.size());
  }
  TY_CHECK_EQ(args.m.size(), args.param.size());
  if (args.m.dtype() == DType::kF8E4M3) {
    TY_CHECK(args.m_scales.dtype() == DType::kF32);
    TY_CHECK_EQ(args.m_scales.size(), (args.m.size() + kMomentGroup - 1) / kMomentGroup);
    TY_CHECK_EQ(args.first_element % kMomentGroup, 0);
  } else {
    TY_CHECK(args.m.dtype() == DType::kF32 || args.m.dtype() == DType::kBF16);
    TY_CHECK(!args.m_scales);
  }
  if (args.master) {
    TY_CHECK(args.master.dtype() == DType::kF32);
    TY_CHECK_EQ(args.master.size(), args.param.size());
  }
  if (args.gradient_factor) {
    TY_CHECK(args.gradient_factor.dtype() == DType::kF32);
    TY_CHECK_EQ(args.gradient_factor.size(), 1);
  }
  TY_CHECK_GE(args.step, 1);
  TY_CHECK_GE(args.first_element, 0);
  TY_SELECT(stream, AdamW)(args, stream);
}

}  // namespace trainyard::kernels
