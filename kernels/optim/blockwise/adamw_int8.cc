#include "kernels/optim/blockwise/adamw_int8.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/blockwise/adamw_int8_internal.h"
#include "kernels/optim/blockwise/moment8.h"

namespace trainyard::kernels {
void AdamWInt8(const AdamWInt8Args& args, Stream& stream) {
  const int64_t size = args.param.size();
  TY_CHECK(args.param.dtype() == DType::kF32 || args.param.dtype() == DType::kBF16);
  TY_CHECK(args.grad.dtype() == DType::kF32);
  TY_CHECK_EQ(args.grad.size(), size);
  if (args.master) {
    TY_CHECK(args.master.dtype() == DType::kF32);
    TY_CHECK_EQ(args.master.size(), size);
  }
  for (const TensorView& codes : {args.m, args.v}) {
    TY_CHECK(codes.dtype() == DType::kU8);
    TY_CHECK_EQ(codes.size(), size);
  }
  for (const TensorView& scales : {args.m_scale, args.v_scale}) {
    TY_CHECK(scales.dtype() == DType::kF32);
    TY_CHECK_EQ(scales.size(), Moment8Blocks(size));
  }
  if (args.gradient_factor) TY_CHECK_EQ(args.gradient_factor.size(), 1);
  TY_CHECK_GE(args.step, 1);
  TY_SELECT(stream, AdamWInt8)(args, stream);
}

}  // namespace trainyard::kernels
