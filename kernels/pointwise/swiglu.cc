#include "kernels/pointwise/swiglu.h"

#include "kernels/core/dispatch.h"
#include "kernels/pointwise/swiglu_internal.h"

namespace trainyard::kernels {
namespace {

void CheckShapes(const TensorView& gate_up, const TensorView& y) {
  TY_CHECK_EQ(gate_up.rank(), 2);
  TY_CHECK_EQ(y.rank(), 2);
  TY_CHECK_EQ(gate_up.dim(0), y.dim(0));
  TY_CHECK_EQ(gate_up.dim(1), 2 * y.dim(1));
  TY_CHECK(gate_up.dtype() == y.dtype());
}

}  // namespace

void SwigluForward(const SwigluForwardArgs& args, Stream& stream) {
  CheckShapes(args.gate_up, args.y);
  TY_SELECT(stream, SwigluForward)(args, stream);
}

void SwigluBackward(const SwigluBackwardArgs& args, Stream& stream) {
  CheckShapes(args.gate_up, args.dy);
  CheckShapes(args.dgate_up, args.dy);
  TY_SELECT(stream, SwigluBackward)(args, stream);
}

}  // namespace trainyard::kernels
