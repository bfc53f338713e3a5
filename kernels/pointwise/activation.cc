#include "kernels/pointwise/activation.h"

#include "kernels/core/dispatch.h"
#include "kernels/pointwise/activation_internal.h"

namespace trainyard::kernels {
namespace {

void CheckLike(const TensorView& a, const TensorView& b) {
  TY_CHECK_EQ(a.size(), b.size());
  TY_CHECK(a.dtype() == b.dtype());
}

void CheckBackward(const TensorView& y, const TensorView& dy, const TensorView& dx, bool accumulate) {
  CheckLike(y, dy);
  CheckLike(y, dx);
  if (accumulate) TY_CHECK(dx.data() != dy.data());
}

}  // namespace

void LeakyReluForward(const LeakyReluForwardArgs& args, Stream& stream) {
  CheckLike(args.x, args.y);
  TY_CHECK_GE(args.slope, 0.0f);
  TY_SELECT(stream, LeakyReluForward)(args, stream);
}

void LeakyReluBackward(const LeakyReluBackwardArgs& args, Stream& stream) {
  CheckBackward(args.y, args.dy, args.dx, args.accumulate);
  TY_CHECK_GE(args.slope, 0.0f);
  TY_SELECT(stream, LeakyReluBackward)(args, stream);
}

void TanhForward(const TanhForwardArgs& args, Stream& stream) {
  CheckLike(args.x, args.y);
  TY_SELECT(stream, TanhForward)(args, stream);
}

void TanhBackward(const TanhBackwardArgs& args, Stream& stream) {
  CheckBackward(args.y, args.dy, args.dx, args.accumulate);
  TY_SELECT(stream, TanhBackward)(args, stream);
}

}  // namespace trainyard::kernels
