#include "kernels/norm/rms_norm.h"

#include <algorithm>

#include "kernels/core/dispatch.h"
#include "kernels/norm/rms_norm_internal.h"

namespace trainyard::kernels {
namespace {

void CheckLike(const TensorView& x, const TensorView& other) {
  TY_CHECK_EQ(other.size(), x.size());
  TY_CHECK(other.dtype() == x.dtype());
}

}  // namespace

void RmsNormForward(const RmsNormForwardArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.rank(), 2);
  CheckLike(args.x, args.y);
  TY_CHECK_EQ(args.w.size(), args.x.dim(1));
  TY_CHECK(args.w.dtype() == args.x.dtype());
  TY_CHECK_EQ(args.inv_rms.size(), args.x.dim(0));
  if (args.residual) {
    CheckLike(args.x, args.residual);
    CheckLike(args.x, args.sum);
  }
  TY_SELECT(stream, RmsNormForward)(args, stream);
}

void RmsNormBackward(const RmsNormBackwardArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.rank(), 2);
  CheckLike(args.x, args.dy);
  CheckLike(args.x, args.dx);
  if (args.dresidual) CheckLike(args.x, args.dresidual);
  TY_CHECK_EQ(args.w.size(), args.x.dim(1));
  TY_CHECK(args.w.dtype() == args.x.dtype());
  TY_CHECK_EQ(args.dw.size(), args.x.dim(1));
  TY_CHECK(args.dw.dtype() == args.x.dtype() || args.dw.dtype() == DType::kF32);
  TY_CHECK_EQ(args.inv_rms.size(), args.x.dim(0));
  const int64_t needed_bytes = RmsNormBackwardWorkspaceBytes(args.x.dim(0), args.x.dim(1));
  if (needed_bytes > 0) TY_CHECK_GE(args.workspace ? args.workspace.bytes() : 0, needed_bytes);
  TY_SELECT(stream, RmsNormBackward)(args, stream);
}

int64_t RmsNormBackwardWorkspaceBytes(int64_t rows, int64_t cols) {
  const int64_t partials = std::max(internal::RmsNormPartialCount(rows), internal::RmsNormDevicePartialCount(rows));
  return partials * cols * static_cast<int64_t>(sizeof(float));
}

}  // namespace trainyard::kernels
