#include "kernels/gemm/gemm.h"

#include "kernels/core/dispatch.h"
#include "kernels/gemm/gemm_internal.h"

namespace trainyard::kernels {
namespace {

void CheckScale(const TensorView& scale) {
  if (!scale) return;
  TY_CHECK(scale.dtype() == DType::kF32);
  TY_CHECK_EQ(scale.size(), 1);
}

}  // namespace

void Gemm(const GemmArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.a.rank(), 2);
  TY_CHECK_EQ(args.b.rank(), 2);
  TY_CHECK_EQ(args.c.rank(), 2);
  const int64_t m = args.c.dim(0);
  const int64_t n = args.c.dim(1);
  const int64_t k = args.a.dim(args.transpose_a ? 0 : 1);
  TY_CHECK_EQ(args.a.dim(args.transpose_a ? 1 : 0), m);
  TY_CHECK_EQ(args.b.dim(args.transpose_b ? 1 : 0), k);
  TY_CHECK_EQ(args.b.dim(args.transpose_b ? 0 : 1), n);
  TY_CHECK(args.a.dtype() == args.b.dtype());
  TY_CHECK(args.c.dtype() == args.a.dtype() || args.c.dtype() == DType::kF32);
  CheckScale(args.a_scale);
  CheckScale(args.b_scale);
  if (args.bias) TY_CHECK_EQ(args.bias.size(), n);
  const int64_t needed_bytes = GemmWorkspaceBytes(args.a.dtype(), m, n, k);
  if (needed_bytes > 0) TY_CHECK_GE(args.workspace ? args.workspace.bytes() : 0, needed_bytes);
  TY_SELECT(stream, Gemm)(args, stream);
}

int64_t GemmWorkspaceBytes(DType dtype, int64_t m, int64_t n, int64_t k) {
  if (dtype == DType::kF32) return 0;
  return internal::WidenedPanels(m, n, k).bytes();
}

}  // namespace trainyard::kernels
