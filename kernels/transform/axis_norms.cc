#include "kernels/transform/axis_norms.h"

#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace internal {

void AxisNormsCpu(const AxisNormsArgs& args, Stream& stream);
void AxisNormsCuda(const AxisNormsArgs& args, Stream& stream);

}  // namespace internal

void AxisNorms(const AxisNormsArgs& args, Stream& stream) {
  TY_CHECK(args.axis == 0 || args.axis == 1);
  TY_CHECK_EQ(args.x.rank(), 2);
  TY_CHECK(args.x.dtype() == DType::kF32);
  TY_CHECK(args.norms.dtype() == DType::kF32);
  TY_CHECK_EQ(args.norms.size(), args.x.dim(args.axis));
  TY_SELECT(stream, AxisNorms)(args, stream);
}

}  // namespace trainyard::kernels
