#include "kernels/transform/take_lines.h"

#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace internal {

void TakeLinesCpu(const TakeLinesArgs& args, Stream& stream);
void TakeLinesCuda(const TakeLinesArgs& args, Stream& stream);

}  // namespace internal

void TakeLines(const TakeLinesArgs& args, Stream& stream) {
  TY_CHECK(args.axis == 0 || args.axis == 1);
  TY_CHECK_EQ(args.x.rank(), 2);
  TY_CHECK_EQ(args.y.rank(), 2);
  TY_CHECK(args.x.dtype() == args.y.dtype());
  TY_CHECK(args.indices.dtype() == DType::kI32);
  TY_CHECK_EQ(args.y.dim(args.axis), args.indices.size());
  TY_CHECK_EQ(args.y.dim(1 - args.axis), args.x.dim(1 - args.axis));
  TY_SELECT(stream, TakeLines)(args, stream);
}

}  // namespace trainyard::kernels
