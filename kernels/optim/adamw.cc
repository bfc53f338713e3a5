#include "kernels/optim/adamw.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace internal {

void AdamWCpu(const AdamWArgs& args, Stream& stream);

}  // namespace internal

void AdamW(const AdamWArgs& args, Stream& stream) {
  for (const TensorView& x : {args.param, args.grad, args.m, args.v}) {
    TY_CHECK(x.dtype() == DType::kF32 || x.dtype() == DType::kBF16);
    TY_CHECK_EQ(x.size(), args.param.size());
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
