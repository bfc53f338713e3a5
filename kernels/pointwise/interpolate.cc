#include "kernels/pointwise/interpolate.h"

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/pointwise/interpolate_internal.h"

namespace trainyard::kernels {

void Interpolate(const InterpolateArgs& args, Stream& stream) {
  TY_CHECK(args.a.dtype() == DType::kF32 && args.x.dtype() == DType::kF32);
  TY_CHECK(args.y.dtype() == DType::kF32 && args.out.dtype() == DType::kF32);
  TY_CHECK_EQ(args.a.size(), args.x.dim(0));
  TY_CHECK_EQ(args.x.size(), args.y.size());
  TY_CHECK_EQ(args.x.size(), args.out.size());
  if (args.x.size() == 0) return;
  TY_SELECT(stream, Interpolate)(args, stream);
}

}  // namespace trainyard::kernels
