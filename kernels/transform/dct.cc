#include "kernels/transform/dct.h"

#include "kernels/core/dispatch.h"
#include "kernels/gemm/gemm.h"
#include "kernels/transform/dct_internal.h"

namespace trainyard::kernels {

void DctBasis(const DctBasisArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.basis.rank(), 2);
  TY_CHECK_EQ(args.basis.dim(0), args.basis.dim(1));
  TY_SELECT(stream, DctBasis)(args, stream);
}

void DctMatrix(const DctMatrixArgs& args, Stream& stream) {
  TY_CHECK(args.axis == 0 || args.axis == 1);
  TY_CHECK_EQ(args.x.rank(), 2);
  TY_CHECK_EQ(args.basis.rank(), 2);
  TY_CHECK_EQ(args.basis.dim(0), args.x.dim(args.axis));
  TY_CHECK_EQ(args.basis.dim(1), args.x.dim(args.axis));
  TY_CHECK(SameShape(args.x, args.y));
  if (args.axis == 1) {
    Gemm({.a = args.x, .b = args.basis, .c = args.y, .workspace = args.workspace}, stream);
  } else {
    Gemm({.a = args.basis, .b = args.x, .c = args.y, .transpose_a = true, .workspace = args.workspace}, stream);
  }
}

int64_t DctMatrixWorkspaceBytes(const TensorView& x, int axis) {
  return GemmWorkspaceBytes(x.dtype(), x.dim(0), x.dim(1), x.dim(axis));
}

void DctFft(const DctFftArgs& args, Stream& stream) {
  TY_CHECK(args.axis == 0 || args.axis == 1);
  TY_CHECK_EQ(args.x.rank(), 2);
  TY_CHECK(SameShape(args.x, args.y));
  TY_CHECK(args.plan != nullptr);
  TY_CHECK_EQ(args.plan->n(), args.x.dim(args.axis));
  TY_CHECK_GE(args.workspace ? args.workspace.bytes() : 0, args.plan->thread_bytes());
  if (args.plan->device() == Device::kCuda) {
    TY_SELECT(stream, DctFft)(args, stream);
  } else {
    TY_SELECT_HOST(stream, DctFft)(args, stream);
  }
}

}  // namespace trainyard::kernels
