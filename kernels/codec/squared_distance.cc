#include "kernels/codec/squared_distance.h"

#include "kernels/codec/squared_distance_internal.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {

double SquaredDistance(const SquaredDistanceArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.a.size(), args.b.size());
  return TY_SELECT(stream, SquaredDistance)(args, stream);
}

double SquaredNorm(const TensorView& a, Stream& stream) {
  return TY_SELECT(stream, SquaredNorm)(a, stream);
}

}  // namespace trainyard::kernels
