#include "kernels/optim/sgd.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/sgd_internal.h"

namespace trainyard::kernels {
void Sgd(const SgdArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.grad.size(), args.param.size());
  if (args.velocity) {
    TY_CHECK_EQ(args.velocity.size(), args.param.size());
  } else {
    TY_CHECK_EQ(args.momentum, 0.0f);
  }
  if (args.master) {
    TY_CHECK(args.master.dtype() == DType::kF32);
    TY_CHECK_EQ(args.master.size(), args.param.size());
  }
  if (args.gradient_factor) {
    TY_CHECK(args.gradient_factor.dtype() == DType::kF32);
    TY_CHECK_EQ(args.gradient_factor.size(), 1);
  }
  TY_CHECK_GE(args.first_element, 0);
  TY_SELECT(stream, Sgd)(args, stream);
}

}  // namespace trainyard::kernels
